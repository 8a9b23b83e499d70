"""Cosines of pairs from embeddings that come batch after batch."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from captum_leam.verification import PairScores, verify

PEOPLE = list("aabbbcda")


def scores_of(embeddings, people, cuts):
    parts = []
    for rows in np.split(np.arange(len(people)), cuts):
        parts.append(PairScores())
        if len(rows):
            parts[-1].update(embeddings[rows], [people[row] for row in rows])
    merged = PairScores()
    for part in reversed(parts):
        merged.merge(part)
    return merged


def test_batches_give_what_verify_gives():
    images = torch.rand(8, 3, 2, 2, dtype=torch.float64)
    expected = verify(nn.Flatten(), images, PEOPLE)
    found = scores_of(images.flatten(1).numpy(), PEOPLE, [3, 4]).compute()
    assert np.allclose(found.genuine, expected.genuine, atol=1e-12)
    assert np.allclose(found.impostor, expected.impostor, atol=1e-12)
    assert found.eer == expected.eer


def test_of_many_pairs_some_are_drawn_by_the_seed():
    embeddings = np.random.default_rng(0).normal(size=(40, 4))
    people = [f"p{i // 4}" for i in range(40)]
    every = scores_of(embeddings, people, []).compute()
    some, again, other = (scores_of(embeddings, people, []).compute(20, seed) for seed in (0, 0, 1))
    assert (len(every.genuine), len(every.impostor)) == (60, 720)
    assert (len(some.genuine), len(some.impostor)) == (20, 20)
    assert np.array_equal(some.impostor, again.impostor)
    assert not np.array_equal(some.impostor, other.impostor)
    assert np.isin(some.genuine, every.genuine).all()
    assert np.isin(some.impostor, every.impostor).all()


@pytest.mark.parametrize("max_pairs", [1, 3, 20, 30, 35, 60, 66])
@pytest.mark.parametrize("people", ["aabbccddeeff", "aaaaaabbbbbb", "abbbbbbbbbbb", "aaaaaaaaaaaa"])
def test_drawn_pairs_are_as_many_as_asked_and_different(people, max_pairs):
    embeddings = np.random.default_rng(0).normal(size=(12, 8))
    scores = scores_of(embeddings, list(people), [])
    impostor = scores.compute(max_pairs).impostor
    every = scores.compute().impostor
    assert len(every) == sum(a != b for a, b in combinations(people, 2))
    assert len(np.unique(impostor)) == len(impostor) == min(max_pairs, len(every))
    assert np.isin(impostor, every).all()


@pytest.mark.parametrize("max_pairs", [3, 15])  # of 27, by rejection and by shuffling
def test_every_impostor_pair_is_drawn_equally_often(max_pairs):
    scores = scores_of(np.random.default_rng(0).normal(size=(9, 8)), list("aaabbbccc"), [])
    every = scores.compute().impostor
    drawn = np.concatenate([scores.compute(max_pairs, seed).impostor for seed in range(1000)])
    found = np.array([(drawn == score).sum() for score in every])
    assert found.sum() == 1000 * max_pairs
    assert chisquare(found).pvalue > 0.001


def test_has_both_kinds_is_false_for_pairs_of_one_kind():
    assert not scores_of(np.eye(3), list("abc"), []).compute().has_both_kinds
    assert not PairScores().compute().has_both_kinds
    assert scores_of(np.eye(3), list("aab"), []).compute().has_both_kinds
