import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional

from stream_trainer.learners.tabular.heads import Classes, Head, Number
from stream_trainer.learners.tabular.nets import Nets, Training, fresh_moments

NETS = Nets(rates=(1e-2, 3e-2), blind=(False, True), hidden=5, average=0.0)
AVERAGED = Nets(rates=(1e-2, 3e-2), hidden=5, average=0.1)
WIDTH, MEMORY = 6, 2


def generator() -> Generator:
    return Generator().manual_seed(3)


def example(head: Head) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    net = NETS.fresh(WIDTH, MEMORY, head.size, generator())
    rows = torch.randn(7, WIDTH, generator=generator())
    if head.size == 1:
        return net, rows, torch.randn(7, 1, generator=generator()) * 3
    return net, rows, functional.one_hot(torch.arange(7) % head.size, head.size).float()


def by_autograd(net: dict[str, Tensor], rows: Tensor, codes: Tensor) -> dict[str, Tensor]:
    """The weights after one step of torch's own Adam, each net for itself."""
    after = {name: tensor.clone() for name, tensor in net.items()}
    for index, rate in enumerate(NETS.rates):
        first, second = (net["first"][:, index].clone().requires_grad_(), net["second"][index].clone().requires_grad_())
        layer = rows @ first
        outputs = layer[:, 5:] + layer[:, :5].relu() @ second
        if codes.shape[1] == 1:
            loss = functional.huber_loss(outputs, codes, reduction="mean")
        else:
            loss = functional.cross_entropy(outputs, codes)
        loss.backward()  # type: ignore[no-untyped-call]
        if index == 1:
            first.grad[:MEMORY] = 0.0  # type: ignore[index]
        torch.optim.Adam([first, second], lr=rate, betas=(0.9, 0.99), eps=1e-6).step()
        after["first"][:, index], after["second"][index] = first.detach(), second.detach()
    return after


@pytest.mark.parametrize("head", [Classes(2, binary=True), Classes(4, binary=False), Number(100)])
def test_a_step_is_that_of_autograd_and_adam(head: Head) -> None:
    net, rows, codes = example(head)
    training = Training(NETS, net, fresh_moments(net), head, MEMORY)
    training.step(rows, codes, torch.ones(len(rows)))
    expected = by_autograd(net, rows, codes)
    for name, tensor in training.tensors().items():
        assert torch.allclose(tensor, expected[name], atol=2e-6), name


def test_a_blind_net_has_no_weight_on_the_label_memory_ever() -> None:
    head = Classes(2, binary=True)
    net, rows, codes = example(head)
    training = Training(NETS, net, fresh_moments(net), head, MEMORY)
    for _ in range(50):
        training.step(rows, codes, torch.ones(len(rows)))
    first = training.tensors()["first"]
    assert not first[:MEMORY, 1].any()
    assert first[:MEMORY, 0].any()


def test_training_goes_on_where_it_stopped() -> None:
    head = Classes(2, binary=True)
    net, rows, codes = example(head)
    whole = Training(NETS, net, fresh_moments(net), head, MEMORY)
    for _ in range(6):
        whole.step(rows, codes, torch.ones(len(rows)))
    half = Training(NETS, net, fresh_moments(net), head, MEMORY)
    for _ in range(3):
        half.step(rows, codes, torch.ones(len(rows)))
    rest = Training(NETS, half.tensors(), half.moments(), head, MEMORY)
    for _ in range(3):
        rest.step(rows, codes, torch.ones(len(rows)))
    assert torch.equal(whole.weights, rest.weights)
    assert torch.equal(whole.moments()["moments"], rest.moments()["moments"])


def test_moments_that_fade_become_zero_and_never_denormal() -> None:
    head = Classes(2, binary=True)
    net, rows, codes = example(head)
    training = Training(NETS, net, fresh_moments(net), head, MEMORY)
    training.step(rows, codes, torch.ones(len(rows)))
    quiet = rows.clone()
    quiet[:, 3] = 0.0
    for _ in range(6_000):
        training.step(quiet, codes, torch.ones(len(quiet)))
    moments = training.moments()["moments"]
    tiny = torch.finfo(torch.float32).tiny
    assert not bool(((moments != 0) & (moments.abs() < tiny)).any())


def test_nets_that_were_left_behind_copy_the_best() -> None:
    head = Classes(2, binary=True)
    net, rows, codes = example(head)
    net["first"] = torch.cat([net["first"][:, :1], net["first"][:, :1]], 1)
    training = Training(NETS, net, fresh_moments(net), head, MEMORY)
    for _ in range(60):
        training.step(rows, codes, torch.ones(len(rows)))
    same = Training(NETS, training.tensors(), training.moments(), head, MEMORY)
    same.copy_best(rows, codes, torch.ones(len(rows)), margin=1e9)
    assert torch.equal(same.weights, training.weights)
    training.copy_best(rows, codes, torch.ones(len(rows)), margin=-1.0)
    first, second = training.tensors().values()
    assert torch.equal(first[:, 0], first[:, 1])
    assert torch.equal(second[0], second[1])


def test_averages_are_running_means_of_the_weights() -> None:
    head = Classes(2, binary=True)
    _, rows, codes = example(head)
    net = AVERAGED.fresh(WIDTH, MEMORY, 2, generator())
    training = Training(AVERAGED, net, fresh_moments(net), head, MEMORY)
    expected = torch.zeros_like(net["second"])
    for taken in range(1, 31):
        training.step(rows, codes, torch.ones(len(rows)))
        expected = expected.lerp(training.tensors()["second"], max(0.1, 1 / taken))
    after = training.tensors()
    assert torch.allclose(after["average_second"], expected, atol=1e-6)
    mean = {"first": after["average_first"], "second": after["average_second"]}
    assert torch.allclose(AVERAGED.outputs(after, rows)[2:], NETS.outputs(mean, rows), atol=1e-6)
    assert torch.allclose(AVERAGED.outputs(after, rows)[:2], NETS.outputs(after, rows), atol=1e-6)
    training.copy_best(rows, codes, torch.ones(len(rows)), margin=1e9)
    assert torch.equal(training.tensors()["average_first"], training.tensors()["first"])
