"""What else one would use: the two loops of a tutorial, and the usual loop for any module.

The tutorial's are written anew after one with OpenML's MNIST: softmax regression, batches of 100 in
order, five epochs, SGD at a rate of 0.5; images float32 (N, pixels), labels int64 (N,).
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


def usual(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, rate: float, momentum: float
) -> None:
    """An epoch over shuffled slices: torch.nn, autograd and torch.optim, in the model's dtype."""
    optimizer = optim.SGD(model.parameters(), lr=rate, momentum=momentum)
    order = torch.randperm(len(labels))
    for at in range(0, len(labels), BATCH_SIZE):
        picked = order[at : at + BATCH_SIZE]
        optimizer.zero_grad()
        functional.cross_entropy(model(images[picked]), labels[picked]).backward()
        optimizer.step()
