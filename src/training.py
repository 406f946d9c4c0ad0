"""Training: stochastic gradient descent on the cross-entropy of a softmax regression."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from src.softmax_regression import PIXELS

# (parameters (10, 785), inputs (B, 785), labels (B,), gradient (10, 785)) -> log-probabilities
# (10, B); `gradient` is overwritten with the gradient of the summed cross-entropy. A model
# without a closed form plugs in here with autograd.
Gradient = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def closed_form_gradient(
    parameters: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor, gradient: torch.Tensor
) -> torch.Tensor:
    """(softmax(parameters @ inputs.T) - one_hot(labels)) @ inputs: Bishop, PRML, eq. 4.109.

    With a column for each row of the batch the products take half the time of the other way
    round, and the softmax a fifth.
    """
    log_probabilities = torch.log_softmax(parameters @ inputs.T, dim=0)
    errors = log_probabilities.exp()
    errors.scatter_add_(0, labels[None], errors.new_full((1, len(labels)), -1))
    torch.mm(errors, inputs, out=gradient)
    return log_probabilities


def train(
    parameters: torch.Tensor,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    shuffle: bool,
    drop_last: bool,
    gradient_of: Gradient = closed_form_gradient,
    share: Callable[[slice], slice] = lambda batch: batch,
    reduce: Callable[[torch.Tensor], None] | None = None,
) -> Iterator[tuple[float, float]]:
    """Update `parameters` in place by plain SGD.

    Args:
        parameters: float64 (10, 785), see `softmax_regression`.
        images: float32 (N, 784), on any device; cast and sent to the parameters' batch by batch.
        labels: int64 (N,), on the parameters' device.
        epochs: passes over the rows.
        batch_size: rows a step; the gradient is the mean over them.
        learning_rate: factor of the gradient in the update.
        seed: of the order of the rows, with the epoch's number.
        shuffle: draw a new order each epoch; otherwise the rows' own.
        drop_last: leave out the rows that do not fill a last batch.
        gradient_of: how the gradient of a batch is computed.
        share: the rows of a batch that this process takes; all if it is the only one.
        reduce: replaces a tensor by its sum over the processes; None if this is the only one.

    Yields:
        After each epoch, its mean of the batches' losses and its accuracy, both taken on each
        batch before its update.

    Raises:
        FloatingPointError: a batch's loss is not finite; says where.
    """
    rows = len(labels) - len(labels) % batch_size if drop_last else len(labels)
    batches = [slice(at, min(at + batch_size, rows)) for at in range(0, rows, batch_size)]
    sizes = labels.new_tensor([batch.stop - batch.start for batch in batches])
    inputs = parameters.new_ones(batch_size, PIXELS + 1)
    gradient = torch.empty_like(parameters)
    order = torch.empty_like(labels, device=images.device) if shuffle else None
    log_likelihoods = parameters.new_empty(len(batches), 1)
    hits = labels.new_empty(len(batches))

    def run_epoch() -> None:
        for step, batch in enumerate(batches):
            picked = share(batch) if order is None else order[share(batch)]
            batch_labels = labels[picked]
            batch_inputs = inputs[: len(batch_labels)]
            batch_inputs[:, :PIXELS] = images[picked]
            log_probabilities = gradient_of(parameters, batch_inputs, batch_labels, gradient)
            if reduce is not None:
                reduce(gradient)
            parameters.add_(gradient, alpha=-learning_rate / (batch.stop - batch.start))
            log_likelihood = log_probabilities.gather(0, batch_labels[None])
            torch.sum(log_likelihood, dim=1, out=log_likelihoods[step])
            predicted = log_probabilities.max(dim=0).indices
            torch.sum(predicted == batch_labels, dim=0, out=hits[step])

    if parameters.is_cuda and reduce is None:
        run_epoch = captured(run_epoch, parameters, order)
    for epoch in range(1, epochs + 1):
        if order is not None:
            drawn = np.random.default_rng([seed, epoch]).permutation(len(labels))
            order.copy_(torch.from_numpy(drawn))
        run_epoch()
        if reduce is not None:
            reduce(log_likelihoods)
            reduce(hits)
        losses = -log_likelihoods.flatten() / sizes
        finite = losses.isfinite().cpu()  # looked at once an epoch: a GPU would wait at each step
        if not finite.all():
            step = finite.int().argmin().item() + 1
            raise FloatingPointError(
                f"the loss is not finite at step {step} of epoch {epoch}, "
                f"with a learning_rate of {learning_rate:g}; try a smaller one"
            )
        yield losses.mean().item(), hits.sum().item() / rows


def captured(
    run_epoch: Callable[[], None], parameters: torch.Tensor, order: torch.Tensor | None
) -> Callable[[], None]:
    """Record an epoch as one CUDA graph, so that its steps cost no launches from Python."""
    start = parameters.clone()
    if order is not None:
        order.zero_()  # any valid rows do for the recording
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run_epoch()  # cuBLAS must have its workspace before the capture
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run_epoch()
    parameters.copy_(start)
    return graph.replay
