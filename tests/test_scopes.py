"""Losses as lists, derivatives by module and by example, replicated heads, and steps with them."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn

KEY = dg.Key(9)
N, CLASSES, SIGMAS = 5, 3, 5
Y = np.arange(N) % CLASSES


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


X = normal(0, N, 4)
IMAGES = normal(1, N, 4, 4, 2)


def entropies(logits):
    return nn.cross_entropy(logits, Y, reduction="none")


def flat(tree):
    leaves = [x for x in dg.tree.leaves(tree) if hasattr(x, "dtype")]
    return np.concatenate([np.ravel(np.asarray(x)) for x in leaves])


def reverse(loss, params):
    return dg.gradient(lambda p: dg.objective(loss(p)), mode="reverse")(params)


def draws(loss, params, count, **options):
    fg = dg.forward_gradient(loss, perturb="activations", **options)
    return np.stack([flat(fg(params, key=KEY.fold_in(i))[1]) for i in range(count)])


def assert_mean(drawn, exact):
    error = np.std(drawn, axis=0) / np.sqrt(len(drawn))
    np.testing.assert_array_less(np.abs(drawn.mean(0) - exact), SIGMAS * error + 1e-10)
    assert np.linalg.norm(error) < 0.2 * np.linalg.norm(exact)  # else much would go unnoticed


# --- losses as lists


PARAMS = {"w": normal(2, 4, 3), "v": normal(3, 3, 3)}


def parts(p):
    """Losses of shape (), (N,) and (N, P, G)."""
    h = nn.linear(X, p["w"], activation="tanh")
    cubes = (nn.linear(h, p["v"])[:, None, :] * np.array([[1.0], [2.0]])) ** 2
    return [np.sum(p["v"] ** 2), entropies(h), cubes]


def added(p, first=0):
    return sum(np.sum(x, axis=(1, 2)) if x.ndim == 3 else x for x in parts(p)[first:])


LIST_OPTIONS = {
    "weights": {},
    "three": {"directions": 3},
    "chunks": {"directions": 3, "chunk_size": 2},
    "as-many-as-examples": {"directions": N},
    "rank1": {"structure": "rank1", "directions": 2},
    "module": {"scope": "module", "directions": 2},
    "example": {"scope": "example", "directions": N, "clip": 0.5},
    "activations": {"perturb": "activations"},
    "activations-three": {"perturb": "activations", "directions": 3, "chunk_size": 2},
    "activations-clip": {"perturb": "activations", "directions": N, "clip": 0.5},
}


@pytest.mark.parametrize("options", LIST_OPTIONS.values(), ids=LIST_OPTIONS)
def test_a_list_of_losses_is_their_sum(options):
    """Noise on activities treats a number in another way than its copies: see below."""
    first = int("perturb" in options)
    listed = dg.forward_gradient(
        lambda p: (parts(p)[first:], p["w"]), has_aux=True, with_info=True, **options
    )
    one = dg.forward_gradient(lambda p: added(p, first), with_info=True, **options)
    (value, aux), gradient, info = listed(PARAMS, key=KEY)
    total, expected, other = one(PARAMS, key=KEY)
    np.testing.assert_allclose(value, total, rtol=1e-12)
    np.testing.assert_allclose(info.derivatives, other.derivatives, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(flat(gradient), flat(expected), rtol=1e-9, atol=1e-12)
    assert type(aux) is np.ndarray


def test_a_number_in_a_list_may_depend_on_noise():
    """The mean of what examples give, beside their losses: dL/dz of each example is whole."""

    def loss(p):
        number, each, cubes = parts(p)
        return [number, each, np.mean(np.sum(cubes, axis=(1, 2))) * 2]

    assert_mean(draws(loss, PARAMS, 500, directions=N), flat(reverse(loss, PARAMS)))


@pytest.mark.parametrize("method", ["forward", "backprop"])
def test_a_step_takes_lists_beside_state_and_aux(method):
    results = []
    for loss in (parts, added):
        step = dg.training_step(
            lambda p, s, loss=loss: (loss(p), s + 1, {"n": N}), dg.optim.sgd(0.1),
            method=method, has_state=True, has_aux=True,
        )  # fmt: skip
        state = step.init(PARAMS, KEY, np.array(0.0))
        before = step.value(state)
        for _ in range(2):
            state, (value, aux) = step(state)
        assert aux == {"n": N} and state.model_state == 2.0
        results.append([before, value, *flat(state.params)])
    np.testing.assert_allclose(*results, rtol=1e-10)
    assert results[0][1] != results[0][0]


@pytest.mark.parametrize(
    "loss, perturb, said",
    [
        (lambda p: [], "weights", "the loss is an empty list. Give one array"),
        (lambda p: [np.sum(p["w"], axis=1), p["w"][0]], "weights", "4 and 3 examples"),
        (lambda p: p["w"], "weights", r"has shape \(4, 3\).*Take a mean"),
        (lambda p: [np.sum(p["w"]) * 1j], "weights", "one real number"),
        (lambda p: [np.sum(p["w"]), "loss"], "weights", "returned a str"),
        (lambda p: [np.sum(nn.linear(X, p["w"]))], "activations", r"the loss has shape \(\)"),
    ],
)
def test_lists_that_are_no_loss_are_refused(loss, perturb, said):
    with pytest.raises((dg.ShapeError, dg.StructureError), match=said):
        dg.forward_gradient(loss, perturb=perturb)(PARAMS, key=KEY)


# --- derivatives by module


@dataclasses.dataclass(frozen=True)
class Model:
    first: Any
    second: Any


W, B, V = normal(4, 4, 3), normal(5, 3), normal(6, 3, 2)


def of(w, b, v):
    return np.sum((np.tanh(X @ w + b) @ v) ** 2, axis=1)


TREES = {  # params, loss, the beginnings of the modules' paths
    "dict": ({"a": {"w": W, "b": B}, "z": V, "n": "net"},
             lambda p: of(p["a"]["w"], p["a"]["b"], p["z"]), ["a/", "z"]),
    "list": ([W, B, V, "tanh"], lambda p: of(*p[:3]), ["0", "1", "2"]),
    "dataclass": (Model((W, B), V), lambda p: of(*p.first, p.second), ["first/", "second"]),
    "single": ({"net": [{"w": W, "b": B}, V], "n": "net"},
               lambda p: of(p["net"][0]["w"], p["net"][0]["b"], p["net"][1]), ["net/0", "net/1"]),
    "array": (W, lambda w: of(w, B, V), [""]),
}  # fmt: skip


def of_module(directions, prefix):
    """Return the k directions of one module, zero outside it, (k, d), and a tree of each."""
    leaves, structure = dg.tree.flatten(directions)
    kept = []
    for path, v in zip(dg.tree.paths(directions), leaves, strict=True):
        v = v.dense() if hasattr(v, "dense") else v
        kept.append(v if v is None or path.startswith(prefix) else np.zeros_like(v))
    k = next(len(v) for v in kept if v is not None)
    trees = [
        dg.tree.unflatten(structure, [None if v is None else v[i] for v in kept]) for i in range(k)
    ]
    return np.stack([flat(tree) for tree in trees]), trees


def cosines(params, shift=0.0):
    return dg.tree.map(lambda w: np.cos(w + shift) if hasattr(w, "dtype") else w, params)


MODULE_OPTIONS = {
    "one": {},
    "rank1": {"directions": 3, "structure": "rank1"},
    "chunks": {"directions": 3, "chunk_size": 2, "distribution": "normal"},
    "clip": {"directions": 3, "clip": 5.0},
    "projection": {"directions": 3, "combine": "projection"},
    "guess": {"guess": 1},
    "guesses": {"guess": 2, "combine": "projection", "chunk_size": 1},
}


@pytest.mark.parametrize("options", MODULE_OPTIONS.values(), ids=MODULE_OPTIONS)
@pytest.mark.parametrize("name", TREES)
def test_each_module_has_a_derivative_of_its_own(name, options):
    params, loss, prefixes = TREES[name]
    if "guess" in options:
        options = options | {"guess": [cosines(params, s) for s in range(options["guess"])]}
    fg = dg.forward_gradient(loss, scope="module", with_info=True, **options)
    value, gradient, info = fg(params, key=KEY)
    k = len(info.derivatives)
    expected, derivatives = 0, []
    for prefix in prefixes:
        rows, trees = of_module(info.directions, prefix)
        d = [dg.jvp(lambda p: np.mean(loss(p)), (params,), (v,))[1] for v in trees]
        d = np.clip(d, -options.get("clip", np.inf), options.get("clip", np.inf))
        derivatives.append(d)
        if options.get("combine") == "projection":  # of the true gradient, on their span
            expected += np.linalg.pinv(rows) @ rows @ flat(reverse(loss, params))
        else:
            expected += d @ rows / k
    np.testing.assert_allclose(info.derivatives, np.stack(derivatives, axis=1), rtol=1e-9)
    np.testing.assert_allclose(flat(gradient), expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(value, np.mean(loss(params)), rtol=1e-12)


def block(n_in, n_out, place, norm=nn.LayerNorm):
    linear = nn.Linear(n_in, n_out, key=KEY.fold_in(place), dtype=np.float64)
    head = nn.Linear(n_out, CLASSES, key=KEY.fold_in(100 + place), dtype=np.float64)
    return nn.LocalBlock(nn.Sequential(linear, norm(n_out, dtype=np.float64), nn.tanh), head)


@pytest.mark.parametrize("structure", ["dense", "rank1"])
def test_projections_of_modules_that_are_blocks(structure):
    net = nn.LocalNetwork(block(4, 5, 0), block(5, 6, 1))
    options = {"directions": 3, "combine": "projection", "structure": structure}
    loss, found = (lambda net: net.local_losses(X, Y)), []
    for scope in ("module", "global"):
        fg = dg.forward_gradient(loss, scope=scope, with_info=True, **options)
        found.append(fg(net, key=KEY))
    (_, gradient, info), (_, other, whole) = found
    np.testing.assert_allclose(flat(gradient), flat(other), rtol=1e-9, atol=1e-12)
    assert info.derivatives.shape == (3, 2)
    np.testing.assert_allclose(info.derivatives, whole.derivatives, rtol=1e-10)


# --- derivatives by example


EXAMPLE_OPTIONS = [{}, {"structure": "rank1"}, {"combine": "projection"}, {"clip": 2.0},
                   {"clip": 2.0, "chunk_size": 2}]  # fmt: skip


@pytest.mark.parametrize("options", EXAMPLE_OPTIONS, ids=str)
@pytest.mark.parametrize("k", [1, 3, N])
def test_each_example_has_a_derivative_of_its_own(k, options):
    params, loss, _ = TREES["dict"]
    fg = dg.forward_gradient(loss, scope="example", directions=k, with_info=True, **options)
    _, gradient, info = fg(params, key=KEY)
    b, trees = of_module(info.directions, "")
    free = np.stack([dg.jvp(loss, (params,), (v,))[1] for v in trees])
    bound = options.get("clip", np.inf)
    assert bound == np.inf or 0 < np.sum(np.abs(free) > bound) < free.size
    np.testing.assert_allclose(info.derivatives, np.clip(free, -bound, bound), rtol=1e-9)
    expected = np.mean(np.clip(free, -bound, bound), axis=1) @ b / k
    if bound == np.inf:  # then nothing tells it from one derivative for all
        expected = flat(dg.forward_gradient(loss, directions=k, **options)(params, key=KEY)[1])
    np.testing.assert_allclose(flat(gradient), expected, rtol=1e-9, atol=1e-12)


def test_scopes_that_have_no_meaning_are_refused():
    with pytest.raises(dg.ShapeError, match=r'scope="example".*shape \(N,\)'):
        dg.forward_gradient(lambda w: np.sum(w), scope="example")(W, key=KEY)
    with pytest.raises(dg.OptionError, match='scope="module" has no meaning.*Leave scope out'):
        dg.forward_gradient(of, scope="module", perturb="activations")


# --- a site inside another transform


def test_a_site_inside_a_transform_takes_an_ordinary_direction():
    """Noise on z would miss how w enters the derivative of z."""

    def slopes(w):
        _, slope = dg.jvp(lambda x: np.tanh(nn.linear(x, w)), (X,), (np.ones_like(X),))
        return np.sum(slope**2, axis=1)

    def loss(w):
        return [slopes(w), entropies(nn.linear(X, w))]

    assert_mean(draws(loss, W, 100, directions=20), flat(reverse(loss, W)))
    with pytest.raises(dg.StructureError, match="not inside dg.jvp"):
        dg.forward_gradient(slopes, perturb="activations")(W, key=KEY)


# --- replicated heads


def replicated(layer, channels, groups, **options):
    """Return a block with such a head, its weights drawn instead of zero."""
    head = nn.ReplicatedHead(channels, CLASSES, groups=groups, dtype=np.float64, **options)
    head = dg.tree.map(lambda w: normal(w.size, *w.shape), head)
    return nn.LocalBlock(layer, head)


def convolution(pool, channels=4):
    conv = nn.Conv2d(2, channels, 3, activation="relu", key=KEY, dtype=np.float64)
    return nn.Sequential(conv, nn.MaxPool2d(2)) if pool else conv


HEADS = [(groups, patches, normalised) for groups in (1, 2, 4) for patches in (True, False)
         for normalised in (True, False) if groups < 4 or not normalised]  # fmt: skip


@pytest.mark.parametrize("groups, patches, normalised", HEADS)
def test_copies_add_up_to_the_cross_entropy_and_its_gradient(groups, patches, normalised):
    options = {"patches": patches, "normalised": normalised}
    c = 6 if normalised else 4
    b, h = replicated(convolution(True, c), c, groups, **options), normal(30, N, 2, 3, c)
    copies, head = b.aux.losses(h, Y)
    assert copies.shape == ((N, 2, 3, groups) if patches else (N, 1, 1, groups))
    total = np.sum(copies, axis=(1, 2, 3)) + np.sum(head, axis=1)
    np.testing.assert_allclose(total, entropies(b.aux(h)), rtol=1e-12)
    exact = flat(reverse(lambda b: entropies(b.aux(b.block(IMAGES))), b))
    found = flat(reverse(lambda b: b(IMAGES, Y)[1], b))
    np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-13)
    one = dg.forward_gradient(lambda b: b(IMAGES, Y)[1], perturb="activations")(b, key=KEY)[1]
    np.testing.assert_allclose(flat(one.aux), flat(reverse(lambda b: b(IMAGES, Y)[1], b).aux))
    drawn = draws(lambda b: b(IMAGES, Y)[1], b, 60, directions=20)
    assert_mean(drawn, exact)


UNITS = {
    "linear": (nn.Linear(4, 4, activation="relu", key=KEY, dtype=np.float64), X),
    "tokens": (nn.Linear(4, 4, activation="tanh", key=KEY, dtype=np.float64), normal(31, N, 3, 4)),
    "conv2d": (convolution(False), IMAGES),
}


@pytest.mark.parametrize("name", UNITS)
def test_one_draw_of_signs_for_groups_of_one_unit_is_the_gradient(name):
    layer, x = UNITS[name]
    b = replicated(layer, 4, 4)
    fg = dg.forward_gradient(lambda b: b(x, Y)[1], perturb="activations")
    exact = flat(reverse(lambda b: entropies(b.aux(b.block(x))), b))
    np.testing.assert_allclose(flat(fg(b, key=KEY)[1]), exact, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("groups, patches, own", [(1, True, -1), (2, True, -1), (2, False, -1),
                                                  (4, False, -1), (2, True, 1)])  # fmt: skip
def test_the_variance_is_that_of_the_other_noise_of_the_group(groups, patches, own):
    """The cotangent s_a = u_a sum_b u_b e_b over group and, without patches, places b.

    Its variance is sum_b e_b^2 -+ e_a^2 (signs, normal), its covariance with s_a' e_a e_a'; with
    z = x w, that of dw is X X' times these of the places, summed over the units, over N^2.
    """
    x, distribution = normal(32, N, 3, 4), "rademacher" if own < 0 else "normal"
    w, size = normal(33, 4, 4), 4 // groups
    layer = nn.Linear(4, 4, bias=False, key=KEY, dtype=np.float64)
    b = replicated(dg.tree.map(lambda _: w, layer), 4, groups, patches=patches)
    e = N * reverse(lambda h: entropies(b.aux(h)), x @ w).reshape(N, 3, groups, size)
    squares = np.sum(e**2, axis=3 if patches else (1, 3), keepdims=True)
    between = np.zeros((N, 3, 3, groups, size)) if patches else np.einsum("npgc,nqgc->npqgc", e, e)
    between[:, range(3), range(3)] = squares + own * e**2
    expected = np.einsum("npi,nqi,npqgc->", x, x, between) / N**2
    exact = flat(reverse(lambda b: b(x, Y)[1], b).block)
    drawn = draws(lambda b: b(x, Y)[1], b, 400, distribution=distribution, directions=3)
    found = 3 * np.sum((drawn[:, : w.size] - exact) ** 2, axis=1)
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - expected) < SIGMAS * error < expected / 4


@pytest.mark.parametrize("inside", [True, False])
def test_a_block_that_mixes_groups_misses_what_crosses(inside):
    own = np.kron(np.eye(2), np.ones((2, 2)))  # each pair of units is a group
    mix = normal(34, 4, 4) * (own if inside else 1)
    linear = nn.Linear(4, 4, bias=False, key=KEY, dtype=np.float64)
    b = replicated(nn.Sequential(linear, lambda z: z @ mix), 4, 2)
    e = N * reverse(lambda h: entropies(b.aux(h)), b.block(X))
    seen = np.ravel(X.T @ (e @ (mix * own).T)) / N
    drawn = draws(lambda b: b(X, Y)[1], b, 300, directions=8)[:, :16]
    assert_mean(drawn, seen)
    exact = flat(reverse(lambda b: b(X, Y)[1], b).block)
    far = np.abs(exact - seen) > 20 * np.std(drawn, axis=0) / np.sqrt(len(drawn)) + 1e-12
    assert np.any(far) == (not inside)


# --- steps


@pytest.mark.parametrize("options", [{"scope": "module"}, {"scope": "example", "clip": 0.5}])
def test_a_step_with_a_scope_is_not_planned_without_it(options, capsys):
    params = {"w": W, "v": V}

    def loss(p, x):
        return np.sum((np.tanh(x @ p["w"]) @ p["v"]) ** 2, axis=1)

    step = dg.training_step(loss, dg.optim.sgd(0.1), **options)
    state = step.init(params, KEY)
    step.explain(state, X)
    assert "eager (scope is not 'global')" in capsys.readouterr().out
    state, value = step(state, X)
    _, g = dg.forward_gradient(loss, **options)(params, X, key=KEY.fold_in(0))
    for name in params:
        np.testing.assert_allclose(state.params[name], params[name] - 0.1 * g[name], rtol=1e-12)


@pytest.mark.parametrize("together", [sum, list], ids=["sum", "list"])
def test_local_losses_are_not_planned_on_one_level(together, capsys):
    net = nn.LocalNetwork(block(4, 5, 2), block(5, 6, 3))

    def loss(net, x, y):
        return together(net.local_losses(x, y))

    ends = []
    for plan in (True, False):
        step = dg.training_step(loss, dg.optim.sgd(0.1), plan=plan, directions=2)
        state = step.init(net, KEY)
        step.explain(state, X, Y)
        for _ in range(2):
            state, _ = step(state, X, Y)
        ends.append(flat(state.params))
    assert "eager, as" in capsys.readouterr().out
    np.testing.assert_array_equal(*ends)


def test_a_guided_step_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, capsys):
    net = nn.LocalNetwork(block(4, 5, 4, nn.BatchNorm), block(5, 6, 5), block(6, 5, 6))

    def loss(net, state, x, y):
        logits, new = net(x, state)
        return entropies(logits), new

    def made():
        step = dg.training_step(
            loss, dg.optim.sgd(0.1, momentum=0.9), has_state=True,
            method=dg.guided_gradient(guess="ntk", has_state=True),
        )  # fmt: skip
        return step, step.init(net, KEY, net.init_state())

    step, state = made()
    for _ in range(2):
        state, value = step(state, X, Y)
    dg.save(tmp_path / "state", state)
    for _ in range(2):
        state, value = step(state, X, Y)
    step, start = made()
    again = dg.load(tmp_path / "state", like=start)
    np.testing.assert_allclose(step.value(again, X, Y), np.mean(
        loss(again.params, again.model_state, X, Y)[0]), rtol=1e-12)  # fmt: skip
    for _ in range(2):
        again, other = step(again, X, Y)
    assert value == other and again.step == 4
    for one, two in ((state.params, again.params), (state.model_state, again.model_state)):
        np.testing.assert_array_equal(flat(one), flat(two))
    assert np.any(flat(state.model_state) != flat(net.init_state()))
    step.explain(again, X, Y)
    assert "eager (the gradient is a function's): gradient by" in capsys.readouterr().out
