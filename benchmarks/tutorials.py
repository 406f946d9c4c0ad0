"""The loops that the project is measured against, one thread, float32 unless said otherwise.

The two tutorial loops are written anew after the tutorial on softmax regression with OpenML's
MNIST, with its settings: batches of 100 in order, 5 epochs, SGD at a rate of 0.5.
"""

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

EPOCHS, BATCH_SIZE, LEARNING_RATE = 5, 100, 0.5


def data_loader(images: torch.Tensor, labels: torch.Tensor) -> None:
    """DataLoader, nn.Linear, cross_entropy, autograd and torch.optim.SGD."""
    loader = DataLoader(TensorDataset(images, labels), batch_size=BATCH_SIZE)
    model = nn.Linear(784, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    for _ in range(EPOCHS):
        for batch, batch_labels in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(batch), batch_labels).backward()
            optimizer.step()


def by_hand(images: torch.Tensor, labels: torch.Tensor) -> None:
    """Slices, log-softmax and loss by hand, autograd, the update written out."""
    weights = torch.randn(784, 10, requires_grad=True)
    bias = torch.randn(10, requires_grad=True)
    for _ in range(EPOCHS):
        for start in range(0, len(labels), BATCH_SIZE):
            batch, batch_labels = (
                images[start : start + BATCH_SIZE],
                labels[start : start + BATCH_SIZE],
            )
            logits = batch @ weights + bias
            log_probabilities = logits - logits.exp().sum(dim=-1).log().unsqueeze(-1)
            loss = -log_probabilities[torch.arange(len(batch_labels)), batch_labels].mean()
            loss.backward()
            with torch.no_grad():
                weights.sub_(LEARNING_RATE * weights.grad)
                bias.sub_(LEARNING_RATE * bias.grad)
                weights.grad.zero_()
                bias.grad.zero_()


def floor(images: torch.Tensor, labels: torch.Tensor) -> None:
    """Only what no implementation can leave out: per step a cast and two float64 products."""
    weight = torch.zeros(10, 784, dtype=torch.float64)
    inputs = torch.empty(BATCH_SIZE, 784, dtype=torch.float64)
    logits = torch.empty(10, BATCH_SIZE, dtype=torch.float64)
    gradient = torch.empty_like(weight)
    for _ in range(EPOCHS):
        for batch in images.split(BATCH_SIZE):
            inputs.copy_(batch)
            torch.mm(weight, inputs.T, out=logits)
            torch.mm(logits, inputs, out=gradient)
