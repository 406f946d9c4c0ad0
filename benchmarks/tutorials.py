"""What else one would use: the tutorial's two loops, and the same models with torch.nn.

Written anew after a tutorial on softmax regression with OpenML's MNIST: batches of 100 in order,
five epochs, SGD at a rate of 0.5. As a program this is its nn.Module part from start to end.
"""

import torch
from torch import nn, optim
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

EPOCHS, BATCH_SIZE, LEARNING_RATE = 5, 100, 0.5


def data_loader(images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    """DataLoader, nn.Linear, cross_entropy, autograd and torch.optim.SGD."""
    loader = DataLoader(TensorDataset(images, labels), batch_size=BATCH_SIZE)
    model = nn.Linear(images.shape[1], 10)
    optimizer = optim.SGD(model.parameters(), lr=LEARNING_RATE)
    for _ in range(EPOCHS):
        for batch, wanted in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(batch), wanted).backward()
            optimizer.step()
    return model


def by_hand(images: torch.Tensor, labels: torch.Tensor) -> None:
    """Slices, log-softmax and loss written out, autograd, the update written out."""
    weights = torch.randn(images.shape[1], 10, requires_grad=True)
    bias = torch.randn(10, requires_grad=True)
    for _ in range(EPOCHS):
        for at in range(0, len(labels), BATCH_SIZE):
            batch, wanted = images[at : at + BATCH_SIZE], labels[at : at + BATCH_SIZE]
            logits = batch @ weights + bias
            log_probabilities = logits - logits.exp().sum(dim=-1).log().unsqueeze(-1)
            (-log_probabilities[torch.arange(len(wanted)), wanted].mean()).backward()
            with torch.no_grad():
                for parameter in (weights, bias):
                    assert parameter.grad is not None
                    parameter.sub_(LEARNING_RATE * parameter.grad)
                    parameter.grad.zero_()


@torch.inference_mode()
def closed_form(images: torch.Tensor, labels: torch.Tensor) -> float:
    """Softmax regression in float64 as src does it, but for the grids.

    Rows are columns here too, and each epoch is scored while it trains, as train does; returns
    the last one's accuracy.
    """
    pixels, rate = images.shape[1], LEARNING_RATE / BATCH_SIZE
    weight, gradient = torch.zeros(2, 10, pixels, dtype=torch.float64)
    bias = torch.zeros(10, dtype=torch.float64)
    inputs = torch.empty(BATCH_SIZE, pixels, dtype=torch.float64)
    losses = torch.empty(len(labels), dtype=torch.float64)
    predicted = torch.empty_like(labels)
    minus_one = torch.full((1, BATCH_SIZE), -1, dtype=torch.float64)
    for _ in range(EPOCHS):
        for at in range(0, len(labels), BATCH_SIZE):
            rows = slice(at, at + BATCH_SIZE)
            wanted = labels[None, rows]
            x = inputs.copy_(images[rows]).T
            log_probabilities = torch.addmm(bias[:, None], weight, x).log_softmax(dim=0)
            losses[rows] = log_probabilities.gather(0, wanted)[0]
            _, predicted[rows] = log_probabilities.max(dim=0)  # argmax takes three times as long
            error = log_probabilities.exp_().scatter_add_(0, wanted, minus_one)
            weight.sub_(torch.mm(error, x.T, out=gradient), alpha=rate)
            bias.sub_(error.sum(dim=1), alpha=rate)
        _, accuracy = -losses.mean().item(), (predicted == labels).double().mean().item()
    return accuracy


def convolutional(images: torch.Tensor, labels: torch.Tensor, steps: int) -> None:
    """The net of train.model cnn with nn.Conv2d, autograd and SGD, in the images' dtype."""
    model = nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 16, kernel_size=5, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, kernel_size=5, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    ).to(images.dtype)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    order = torch.randperm(len(labels))
    for at in range(0, steps * BATCH_SIZE, BATCH_SIZE):
        rows = order[at : at + BATCH_SIZE]
        optimizer.zero_grad()
        functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()


def main() -> None:
    """Fetch, convert, train and score, as the tutorial's script does."""
    from sklearn.datasets import fetch_openml

    mnist = fetch_openml(
        "mnist_784",
        version=1,
        as_frame=False,
        parser="pandas",
        read_csv_kwargs={"dtype": "uint8"},  # without it pandas 3.1 cannot read the labels
    )
    images = torch.tensor(mnist.data, dtype=torch.float) / 255
    labels = torch.tensor([int(label) for label in mnist.target])
    model = data_loader(images[:60000], labels[:60000])
    with torch.no_grad():
        predicted = model(images[60000:]).argmax(dim=1)
    print(f"accuracy {(predicted == labels[60000:]).double().mean():.2%}")


if __name__ == "__main__":
    main()
