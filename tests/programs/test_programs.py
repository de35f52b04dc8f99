"""Programs of others give the same, but for rounding, with the names replaced that they import from a peer."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
import scipy.special
import torch
from programs.switching import CLASS_IDS, FEATURES, assert_same, replacements

from stable_softmax.dropin import jax_nn, scipy_special
from stable_softmax.dropin import torch as dropin_torch

# Their authors' code may warn.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def check_same(monkeypatch):
    """Return a function that compares what a program gives before and after the names of a peer are replaced."""

    def check(results, peer, dropin, rtol):
        calls, before = [], jax.tree.leaves(results())
        for name, function in list(replacements(peer, dropin, calls)):
            monkeypatch.setattr(peer, name, function)
        assert_same(jax.tree.leaves(results()), before, rtol)
        assert calls

    return check


def test_optimal_transport_of_numpy_arrays(check_same):
    import ot

    costs = ot.dist(FEATURES[:30].astype(float), FEATURES[60:100].astype(float))
    plan = partial(ot.sinkhorn, [], [], costs, 5.0, method="sinkhorn_log")
    check_same(plan, scipy.special, scipy_special, 1e-9)


def test_optimal_transport_of_jax_arrays(check_same):
    import ot

    costs = ot.dist(jnp.asarray(FEATURES[:60]), jnp.asarray(FEATURES[60:]))
    plan = partial(ot.sinkhorn, [], [], costs, 5.0, method="sinkhorn_log")
    check_same(plan, jax.scipy.special, jax_nn, 1e-4)


def test_optimal_transport_of_tensors_and_its_gradient(check_same, monkeypatch):
    import ot

    own_torch = SimpleNamespace(**vars(torch))
    monkeypatch.setattr(ot.backend, "torch", own_torch)

    def cost_and_gradient():
        points = torch.tensor(FEATURES[:60], requires_grad=True)
        cost = ot.sinkhorn2([], [], ot.dist(points, torch.tensor(FEATURES[60:])), 5.0, method="sinkhorn_log")
        cost.backward()
        return cost.detach().numpy(), points.grad.numpy()

    check_same(cost_and_gradient, own_torch, dropin_torch, 1e-4)


def test_a_mixture_that_numpyro_samples(check_same):
    import numpyro.distributions as dist
    from numpyro import plate, sample
    from numpyro.infer import MCMC, NUTS, init_to_value

    def model(data):
        shares = sample("logits", dist.Normal(jnp.zeros(2), 1).to_event(1))
        means = sample("means", dist.Normal(jnp.zeros(2), 5).to_event(1))
        with plate("data", len(data)):
            parts = dist.MixtureSameFamily(dist.Categorical(logits=shares), dist.Normal(means, 1))
            sample("x", parts, obs=data)

    def means():
        start = init_to_value(values={"means": jnp.asarray([0.0, 4.0])})
        sampler = MCMC(NUTS(model, init_strategy=start), num_warmup=100, num_samples=200, progress_bar=False)
        sampler.run(jax.random.key(0), jnp.asarray(FEATURES[:, 0]))
        return sampler.get_samples()["means"].mean(0)

    # Two chains part from each other after the first rounding error, but have the same distribution.
    check_same(means, jax.nn, jax_nn, 0.1)


def test_a_language_model_that_transformers_trains(check_same, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
    from transformers.loss import loss_utils

    tokens = torch.randint(11, (32, 6), generator=torch.manual_seed(0))
    labels = torch.where(tokens == 3, -100, tokens)
    data = [{"input_ids": ids, "labels": own} for ids, own in zip(tokens, labels, strict=True)]
    size = {"vocab_size": 11, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    dropout = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    quiet = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "logging_strategy": "no", "save_strategy": "no"}

    def trained():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(**size, **dropout, bos_token_id=0, eos_token_id=0))
        arguments = TrainingArguments(str(tmp_path), **quiet, max_steps=8, gradient_accumulation_steps=2)
        loss = Trainer(model, arguments, train_dataset=data).train().training_loss
        return loss, [parameter.detach().numpy() for parameter in model.parameters()]

    check_same(trained, loss_utils.nn.functional, dropin_torch, 1e-4)


@pytest.mark.parametrize("keras_backend", ["jax", "torch"])
def test_a_model_of_keras(keras_backend):
    """In a process of its own, since Keras chooses its backend once."""
    process = subprocess.run(
        [sys.executable, "-m", "programs.keras_model"],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "KERAS_BACKEND": keras_backend},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert set(process.stdout.split()) & {"log_softmax", "cross_entropy"}


def test_mixtures_and_bayes_of_scikit_learn(check_same, monkeypatch):
    from sklearn import mixture, naive_bayes

    # Its own function, which hands NumPy's arrays on to SciPy, gets their namespace as well.
    peer = SimpleNamespace(logsumexp=scipy.special.logsumexp)
    for module in (mixture._base, naive_bayes):
        monkeypatch.setattr(module, "_logsumexp", lambda array, axis=None, xp=None: peer.logsumexp(array, axis))  # noqa: ARG005

    def fitted():
        features = FEATURES.astype(float)
        mixed = mixture.GaussianMixture(2, random_state=0).fit(features)
        bayes = naive_bayes.GaussianNB().fit(features, CLASS_IDS)
        return mixed.means_, mixed.lower_bound_, mixed.score_samples(features), bayes.predict_log_proba(features)

    check_same(fitted, peer, scipy_special, 1e-9)
