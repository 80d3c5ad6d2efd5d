"""Losses and gradients against an independent computation: a linear predictor differentiated by hand in float64.

The predictor is e(x, t, p) = A x + B p + t c with the parameters A, B and c. For a loss that is a weighted mean of
squared norms of residuals r = e(x, t, p) - y, the gradients are, by hand,

    dL/dA = sum_i 2 w_i r_i x_i^T,    dL/dB = sum_i 2 w_i r_i p_i^T,    dL/dc = sum_i 2 w_i r_i t_i,

and a target that is the same predictor "through both branches" subtracts the same terms at the target's inputs. The
independent computation uses no automatic differentiation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.checkout import REPOSITORY

from corelib.settings.objective import Objective, UnlearnTerm
from corelib.study.loading import load_study
from corelib.unlearning.objective import Batch, NoisyPairs, compute_loss, loss_weight

CONFIGURATION = REPOSITORY / "config"
PAPER = load_study("paper", CONFIGURATION)
LATENT, PROMPT, COUNT = (2, 3, 3), (4, 5), 3
D, W = 18, 20

Array = NDArray[np.float64]


@dataclass
class Linear:
    """The predictor's parameters and its prediction."""

    a: Array
    b: Array
    c: Array

    def __call__(self, x: Array, t: Array, p: Array) -> Array:
        return x @ self.a.T + p @ self.b.T + t[:, None] * self.c


class Differentiable:
    """The same predictor for the library: parameters as torch tensors, shapes as the U-Net's."""

    def __init__(self, parameters: Linear) -> None:
        self.a, self.b, self.c = (
            torch.tensor(value, requires_grad=True) for value in (parameters.a, parameters.b, parameters.c)
        )

    def __call__(self, x: torch.Tensor, t: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1) @ self.a.T + p.flatten(1) @ self.b.T + t[:, None].double() * self.c
        return flat.view(-1, *LATENT)


@dataclass
class Side:
    """The inputs of one side of the batch, flat, in float64."""

    x: Array
    t: Array
    noise: Array
    own: Array
    anchor: Array
    uniform: Array
    alpha_bar: Array
    x_of_target: Array

    @classmethod
    def random(cls, rng: np.random.Generator) -> Side:
        x, noise = rng.normal(size=(2, COUNT, D))
        own, anchor = rng.normal(size=(2, COUNT, W))
        t, uniform = rng.integers(0, 1000, COUNT).astype(float), rng.random((COUNT, D))
        return cls(x, t, noise, own, anchor, uniform, rng.random(COUNT), rng.normal(size=(COUNT, D)))

    def pairs(self, with_anchor: bool) -> NoisyPairs:
        image = lambda values: torch.tensor(values).view(-1, *LATENT)  # noqa: E731
        text = lambda values: torch.tensor(values).view(-1, *PROMPT)  # noqa: E731
        return NoisyPairs(
            noisy=image(self.x),
            timesteps=torch.tensor(self.t).long(),
            alpha_bar=torch.tensor(self.alpha_bar),
            noise=image(self.noise),
            own=text(self.own),
            anchor=text(self.anchor) if with_anchor else None,
            uniform=image(self.uniform) if with_anchor else None,
            target_noisy=image(self.x_of_target) if with_anchor else None,
        )


@dataclass
class ByHand:
    """A loss and its gradients, summed up term by term."""

    loss: float
    a: Array
    b: Array
    c: Array

    @classmethod
    def zero(cls) -> ByHand:
        return cls(0.0, np.zeros((D, D)), np.zeros((D, W)), np.zeros(D))

    def add(self, weight: float, residual: Array, x: Array, t: Array, p: Array, norm: bool = False) -> None:
        """weight * mean of ||residual||^2 (or of ||residual||), with the student evaluated at (x, t, p)."""
        norms = np.sqrt((residual**2).sum(axis=1))
        self.loss += weight * float((norms if norm else norms**2).mean())
        self.push(weight * (residual / norms[:, None] if norm else 2 * residual) / len(residual), x, t, p)

    def push(self, upstream: Array, x: Array, t: Array, p: Array) -> None:
        """Add the gradients for dL/de = upstream, (batch, d), at the predictor's inputs."""
        self.a += upstream.T @ x
        self.b += upstream.T @ p
        self.c += upstream.T @ t


@pytest.fixture
def point() -> tuple[Linear, Linear, Side, Side]:
    """Student and teacher, which differ, and a forget and a retain side."""
    rng = np.random.default_rng(7)
    student = Linear(0.3 * rng.normal(size=(D, D)), rng.normal(size=(D, W)), 1e-3 * rng.normal(size=D))
    teacher = Linear(*(value + 0.2 * rng.normal(size=value.shape) for value in (student.a, student.b, student.c)))
    return student, teacher, Side.random(rng), Side.random(rng)


def core(student: Linear, teacher: Linear, f: Side, r: Side) -> ByHand:
    """Equations 2-4 with alpha = 1."""
    result = ByHand.zero()
    result.add(1.0, student(f.x, f.t, f.own) - teacher(f.x, f.t, f.anchor), f.x, f.t, f.own)
    result.add(1.0, student(r.x, r.t, r.own) - teacher(r.x, r.t, r.own), r.x, r.t, r.own)
    return result


def esd(student: Linear, teacher: Linear, f: Side, r: Side) -> ByHand:
    """Equation 8 with eta = 1, expanded as the paper expands it: 2 e_0 - e_f."""
    result = ByHand.zero()
    target = 2 * teacher(f.x, f.t, f.anchor) - teacher(f.x, f.t, f.own)
    result.add(1.0, student(f.x, f.t, f.own) - target, f.x, f.t, f.own)
    return result


def gaussian_retain(result: ByHand, student: Linear, r: Side, weight: float = 1.0) -> ByHand:
    result.add(weight, student(r.x, r.t, r.own) - r.noise, r.x, r.t, r.own)
    return result


def salun(student: Linear, teacher: Linear, f: Side, r: Side) -> ByHand:
    """Equation 9, the target detached."""
    result = ByHand.zero()
    result.add(1.0, student(f.x, f.t, f.own) - student(f.x, f.t, f.anchor), f.x, f.t, f.own)
    return gaussian_retain(result, student, r)


def ediff(student: Linear, teacher: Linear, f: Side, r: Side) -> ByHand:
    """Equation 10."""
    result = ByHand.zero()
    result.add(1.0, student(f.x, f.t, f.own) - f.uniform, f.x, f.t, f.own)
    return gaussian_retain(result, student, r)


def ca_noise(student: Linear, teacher: Linear, f: Side, r: Side) -> ByHand:
    """Equation 12, squared; the choice of the image behind x is not part of the objective."""
    result = ByHand.zero()
    result.add(1.0, student(f.x, f.t, f.own) - f.noise, f.x, f.t, f.own)
    return gaussian_retain(result, student, r)


def core_live_target(student: Linear, teacher: Linear, f: Side, r: Side) -> ByHand:
    result = ByHand.zero()
    result.add(1.0, student(f.x, f.t, f.own) - student(f.x, f.t, f.anchor), f.x, f.t, f.own)
    result.add(1.0, student(r.x, r.t, r.own) - teacher(r.x, r.t, r.own), r.x, r.t, r.own)
    return result


def core_gradient_ascent(student: Linear, teacher: Linear, f: Side, r: Side) -> ByHand:
    result = ByHand.zero()
    result.add(-1.0, student(f.x, f.t, f.own) - f.noise, f.x, f.t, f.own)
    result.add(1.0, student(r.x, r.t, r.own) - teacher(r.x, r.t, r.own), r.x, r.t, r.own)
    return result


def core_gaussian_retain(student: Linear, teacher: Linear, f: Side, r: Side) -> ByHand:
    result = ByHand.zero()
    result.add(1.0, student(f.x, f.t, f.own) - teacher(f.x, f.t, f.anchor), f.x, f.t, f.own)
    return gaussian_retain(result, student, r)


def salun_released(student: Linear, teacher: Linear, f: Side, r: Side) -> ByHand:
    """`forget_loss + alpha * remain_loss` with alpha 0.1, as in its authors' random_label.py; z is drawn twice."""
    result = ByHand.zero()
    result.add(1.0, student(f.x, f.t, f.own) - student(f.x_of_target, f.t, f.anchor), f.x, f.t, f.own)
    return gaussian_retain(result, student, r, 0.1)


def ediff_released(student: Linear, teacher: Linear, f: Side, r: Side) -> ByHand:
    """`remain_loss + alpha * (unlearn_loss - constant)` with alpha 0.1, as in the benchmark's train-erase.py."""
    result = ByHand.zero()
    result.add(0.1, student(f.x, f.t, f.own) - student(f.x_of_target, f.t, f.anchor), f.x, f.t, f.own)
    return gaussian_retain(result, student, r)


def ca_released(student: Linear, teacher: Linear, f: Side, r: Side) -> ByHand:
    """`0.2 * loss_train + loss_train2`, as in its authors' model.py: the regularisation first."""
    result = ByHand.zero()
    result.add(1.0, student(f.x, f.t, f.own) - student(f.x, f.t, f.anchor), f.x, f.t, f.own)
    return gaussian_retain(result, student, r, 0.2)


EQUATIONS = {
    "core": core,
    "esd": esd,
    "salun": salun,
    "ediff": ediff,
    "ca_model": salun,  # equation 11 squared has the loss of equation 9; its images are chosen elsewhere
    "ca_noise": ca_noise,
    "core_live_target": core_live_target,
    "core_gradient_ascent": core_gradient_ascent,
    "core_gaussian_retain": core_gaussian_retain,
    "esd_released": esd,  # the same line of code; x_t and e_0 come from elsewhere
    "salun_released": salun_released,
    "ediff_released": ediff_released,
    "ca_released": ca_released,
}


def compute(objective: Objective, point: tuple[Linear, Linear, Side, Side], reduction: str = "sum") -> ByHand:
    """The loss and gradients of the library at the same point."""
    student, teacher, f, r = point
    trained, frozen = Differentiable(student), Differentiable(teacher)
    batch = Batch(f.pairs(with_anchor=True), r.pairs(with_anchor=False) if objective.retain else None)
    loss = compute_loss(objective, trained, frozen, batch, reduction)  # type: ignore[arg-type]
    loss.total.backward()
    assert frozen.a.grad is None, "the teacher is frozen"
    return ByHand(loss.total.item(), *(value.grad.numpy() for value in (trained.a, trained.b, trained.c)))


def assert_equal(ours: ByHand, theirs: ByHand) -> None:
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-12)
    for name in ("a", "b", "c"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-10, atol=1e-12)


def with_unlearn(objective: Objective, **changes: Any) -> Objective:
    content = objective.model_dump()
    content["unlearn"] |= changes
    return Objective.model_validate(content)


def test_every_method_of_the_paper_is_checked() -> None:
    assert EQUATIONS.keys() == PAPER.methods.keys()


@pytest.mark.parametrize("method", EQUATIONS)
def test_loss_and_gradients_equal_the_equation(method: str, point: tuple[Linear, Linear, Side, Side]) -> None:
    assert_equal(compute(PAPER.methods[method].objective, point), EQUATIONS[method](*point))


@pytest.mark.parametrize("method", EQUATIONS)
def test_mean_reduction_is_the_equation_divided_by_the_dimension(
    method: str, point: tuple[Linear, Linear, Side, Side]
) -> None:
    printed = EQUATIONS[method](*point)
    expected = ByHand(printed.loss / D, printed.a / D, printed.b / D, printed.c / D)
    assert_equal(compute(PAPER.methods[method].objective, point, "mean"), expected)


@pytest.mark.parametrize("distance", ["squared", "norm"])
@pytest.mark.parametrize("method", EQUATIONS)
def test_the_reduction_is_one_factor_of_the_whole_loss(
    method: str, distance: str, point: tuple[Linear, Linear, Side, Side]
) -> None:
    objective = with_unlearn(PAPER.methods[method].objective, distance=distance)
    whole = compute(objective, point, "sum")
    assert_equal(compute(objective, point, "mean"), ByHand(whole.loss / D, whole.a / D, whole.b / D, whole.c / D))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_norm_of_0_has_a_gradient(reduction: str, point: tuple[Linear, Linear, Side, Side]) -> None:
    """A norm of 0 occurs if the target is the student's own prediction. The gradient is the subgradient 0, not NaN."""
    target = {"kind": "frozen_model", "prompt": "own"}
    objective = with_unlearn(PAPER.methods["ca_noise"].objective, distance="norm", target=target)
    objective = objective.model_copy(update={"retain": None})
    student, _, f, r = point
    result = compute(objective, (student, student, f, r), reduction)
    assert_equal(result, ByHand.zero())


def test_student_and_teacher_differ_at_the_point(point: tuple[Linear, Linear, Side, Side]) -> None:
    student, teacher, f, _ = point
    assert np.abs(student(f.x, f.t, f.own) - teacher(f.x, f.t, f.own)).min() > 1e-6


def test_weights_scale_their_terms(point: tuple[Linear, Linear, Side, Side]) -> None:
    content = PAPER.methods["core"].objective.model_dump()
    content["unlearn"]["weight"], content["retain"]["weight"] = 0.25, 3.0
    student, teacher, f, r = point
    expected = ByHand.zero()
    expected.add(0.25, student(f.x, f.t, f.own) - teacher(f.x, f.t, f.anchor), f.x, f.t, f.own)
    expected.add(3.0, student(r.x, r.t, r.own) - teacher(r.x, r.t, r.own), r.x, r.t, r.own)
    assert_equal(compute(Objective.model_validate(content), point), expected)


# omega_t: Hang et al. 2023 (arXiv:2303.09556) for noise prediction, min(SNR, gamma) / SNR with
# SNR = alpha_bar / (1 - alpha_bar); and sigma_t^2 = 1 - alpha_bar, the weight of score distillation.


@pytest.mark.parametrize("method", ["ca_model", "ca_noise", "core_gradient_ascent"])
@pytest.mark.parametrize("gamma", [0.3, 5.0])
def test_min_snr_weights_each_pair_by_its_noise_level(
    method: str, gamma: float, point: tuple[Linear, Linear, Side, Side]
) -> None:
    weight = {"kind": "min_snr", "scale": -0.5, "gamma": gamma}
    objective = with_unlearn(PAPER.methods[method].objective, weight=weight)
    snr = point[2].alpha_bar / (1 - point[2].alpha_bar)
    assert_equal(compute(objective, point), pair_by_pair(method, point, -0.5 * np.minimum(snr, gamma) / snr))


def test_one_minus_alpha_bar_weights_each_pair_by_the_variance_of_its_noise(
    point: tuple[Linear, Linear, Side, Side],
) -> None:
    objective = with_unlearn(PAPER.methods["ca_model"].objective, weight={"kind": "one_minus_alpha_bar", "scale": 2.0})
    assert_equal(compute(objective, point), pair_by_pair("ca_model", point, 2.0 * (1 - point[2].alpha_bar)))


def pair_by_pair(method: str, point: tuple[Linear, Linear, Side, Side], weights: Array) -> ByHand:
    """The unlearn term of each forget pair alone, times its weight, and the retain term as it is."""
    student, teacher, f, r = point
    target = {"core_gradient_ascent": f.noise, "ca_noise": f.noise, "ca_model": student(f.x, f.t, f.anchor)}[method]
    result = ByHand.zero()
    for one, weight in enumerate(weights):
        x, t, p = f.x[[one]], f.t[[one]], f.own[[one]]
        result.add(weight / COUNT, student(x, t, p) - target[[one]], x, t, p)
    if method == "core_gradient_ascent":
        result.add(1.0, student(r.x, r.t, r.own) - teacher(r.x, r.t, r.own), r.x, r.t, r.own)
        return result
    return gaussian_retain(result, student, r)


@pytest.mark.parametrize(("alpha_bar", "expected"), [(0.0, 1.0), (1e-12, 1.0), (0.5, 1.0), (10 / 11, 0.5), (1.0, 0.0)])
def test_min_snr_is_finite_at_every_noise_level(alpha_bar: float, expected: float) -> None:
    """The levels include pure noise and no noise; at an SNR of 10 and with gamma 5, the weight is one half."""
    weight = UnlearnTerm.model_validate(
        PAPER.methods["ca_noise"].objective.unlearn.model_dump()
        | {"weight": {"kind": "min_snr", "scale": 1.0, "gamma": 5.0}}
    ).weight
    assert float(loss_weight(weight, torch.tensor([alpha_bar], dtype=torch.float64))) == pytest.approx(expected)


@pytest.mark.parametrize(("gradient", "through"), [("detached", False), ("through", True)])
def test_a_target_with_its_own_posterior_is_predicted_at_its_own_noisy_image(
    gradient: str, through: bool, point: tuple[Linear, Linear, Side, Side]
) -> None:
    target = {"kind": "current_model", "prompt": "anchor", "gradient": gradient, "posterior": "own"}
    objective = with_unlearn(PAPER.methods["salun"].objective, target=target)
    student, _, f, r = point
    residual = student(f.x, f.t, f.own) - student(f.x_of_target, f.t, f.anchor)
    expected = ByHand.zero()
    expected.add(1.0, residual, f.x, f.t, f.own)
    if through:
        expected.push(-2 * residual / len(residual), f.x_of_target, f.t, f.anchor)
    assert_equal(compute(objective, point), gaussian_retain(expected, student, r))


@pytest.mark.parametrize("eta", [0.0, 0.5, 3.0])
def test_eta_of_equation_8(eta: float, point: tuple[Linear, Linear, Side, Side]) -> None:
    objective = with_unlearn(PAPER.methods["esd"].objective, target={"kind": "guided_model", "eta": eta})
    student, teacher, f, _ = point
    base, own = teacher(f.x, f.t, f.anchor), teacher(f.x, f.t, f.own)
    expected = ByHand.zero()
    expected.add(1.0, student(f.x, f.t, f.own) - (base - eta * (own - base)), f.x, f.t, f.own)
    assert_equal(compute(objective, point), expected)


def test_a_target_through_both_branches_adds_the_gradient_of_the_target(
    point: tuple[Linear, Linear, Side, Side],
) -> None:
    target = {"kind": "current_model", "prompt": "anchor", "gradient": "through", "posterior": "shared"}
    objective = with_unlearn(PAPER.methods["salun"].objective, target=target)
    student, _, f, _ = point
    expected = salun(*point)
    residual = student(f.x, f.t, f.own) - student(f.x, f.t, f.anchor)
    expected.push(-2 * residual / len(residual), f.x, f.t, f.anchor)
    result = compute(objective, point)
    assert_equal(result, expected)
    assert not np.allclose(result.b, salun(*point).b), "detached and through both branches must differ"


def test_the_distance_norm_is_the_root_of_the_squared_norm(point: tuple[Linear, Linear, Side, Side]) -> None:
    objective = with_unlearn(PAPER.methods["ca_noise"].objective, distance="norm")
    student, _, f, r = point
    expected = ByHand.zero()
    expected.add(1.0, student(f.x, f.t, f.own) - f.noise, f.x, f.t, f.own, norm=True)
    assert_equal(compute(objective, point), gaussian_retain(expected, student, r))


def test_the_interval_of_uniform_noise(point: tuple[Linear, Linear, Side, Side]) -> None:
    target = {"kind": "uniform_noise", "low": -1.0, "high": 1.0}
    objective = with_unlearn(PAPER.methods["ediff"].objective, target=target)
    student, _, f, r = point
    expected = ByHand.zero()
    expected.add(1.0, student(f.x, f.t, f.own) - (2 * f.uniform - 1), f.x, f.t, f.own)
    assert_equal(compute(objective, point), gaussian_retain(expected, student, r))


def test_each_predictor_is_called_once_per_step(point: tuple[Linear, Linear, Side, Side]) -> None:
    student, teacher, f, r = point
    calls: list[tuple[str, int]] = []

    def count_calls(name: str, predictor: Differentiable) -> Any:
        def call(x: torch.Tensor, t: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
            calls.append((name, len(x)))
            return predictor(x, t, p)

        return call

    batch = Batch(f.pairs(with_anchor=True), r.pairs(with_anchor=False))
    predictors = count_calls("student", Differentiable(student)), count_calls("teacher", Differentiable(teacher))
    compute_loss(PAPER.methods["core"].objective, *predictors, batch, "mean")
    assert sorted(calls) == [("student", 2 * COUNT), ("teacher", 2 * COUNT)]
