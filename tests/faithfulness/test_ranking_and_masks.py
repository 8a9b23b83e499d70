import pytest
import torch
from torch import Tensor, nn

from captum_leam import LEAM, bhattacharyya, explain_faces, leave_one_out_centroids, suggest_layers
from captum_leam.faithfulness import evaluate_person_masks, person_mask, rank_layers
from captum_leam.faithfulness.person_masks import half_masks
from captum_leam.maps import place_on_field
from tests.helpers.pattern_people import slow_means


@pytest.fixture
def model() -> nn.Module:
    body = [nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(128, 12)).eval()


PEOPLE = [i // 3 for i in range(18)]


def test_ranking_is_sorted_and_complete(model):
    images = torch.rand(18, 3, 16, 16)
    ranking = rank_layers(model, images, PEOPLE, n_steps=2)
    table = ranking.to_frame()
    assert set(table["name"]) == {"1", "3", "overall"}
    assert table["drop"].is_monotonic_decreasing
    assert (table["low"] <= table["drop"]).all()
    assert (table["gap"] == table["same"] - table["different"]).all()
    assert (table["seconds"] > 0).all()
    assert ranking.names == [n for n in table["name"] if n != "overall"]
    assert ranking.plot().axes[0].get_xlabel().startswith("person specificity")
    assert "'people': 6" in repr(ranking)


def test_layer_maps_are_of_the_steps_asked_for_and_towards_the_others_of_the_person(model):
    images = torch.rand(18, 3, 16, 16)
    found = suggest_layers(model, images)
    table = rank_layers(model, images, PEOPLE, layers=found, n_steps=2).to_frame().set_index("name")
    references = leave_one_out_centroids(model(images).detach(), PEOPLE)
    maps = {"overall": explain_faces(model, images, "fast", layers=found, reference=references)}
    for layer in found:
        of_layer = LEAM(model, layer.module).attribute(images, reference=references, n_steps=2)
        maps[layer.name] = place_on_field(of_layer, found.image_size, found.field)
    for name, own in maps.items():
        overlaps = slow_means(bhattacharyya(own).numpy(), PEOPLE, weights="pairs")
        assert table.loc[name, ["same", "different"]].to_dict() == pytest.approx(overlaps)


def test_suggest_layers_can_use_the_ranking(model):
    images = torch.rand(18, 3, 16, 16)
    found = suggest_layers(
        model, images, best_of=lambda s: rank_layers(model, images, PEOPLE, layers=s, n_steps=1).names
    )
    assert [layer.name for layer in found] == rank_layers(model, images, PEOPLE, n_steps=1).names
    assert [layer.name for layer in suggest_layers(model, images, best_of=lambda s: ["3"])] == ["3"]


def test_person_mask_is_the_mean_of_normalised_maps():
    maps = torch.tensor([[[2.0, -1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 3.0]]])
    assert torch.allclose(person_mask(maps), torch.tensor([[0.5, 0.0], [0.125, 0.375]]))
    with pytest.raises(ValueError, match="one map or more"):
        person_mask(maps[:0])


def test_masks_come_from_images_that_are_not_occluded():
    """Maps that name their own image: the mask of an image never holds it."""
    maps = torch.zeros(12, 4, 4)
    for i in range(12):
        maps[i].view(-1)[i] = 1
    people = [i // 4 for i in range(12)]
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(images: Tensor, masks: Tensor) -> Tensor:
        seen.append((images, masks))
        return images * 0

    images = torch.arange(12.0).view(12, 1, 1, 1).expand(12, 1, 4, 4) + 1

    def model(x: Tensor) -> Tensor:
        return torch.cat([x.flatten(1), torch.ones(len(x), 1)], 1)

    evaluate_person_masks(model, images, maps, people, fractions=(2 / 16,), fills=(spy,))
    own = seen[0][1].flatten(1)
    for i in range(12):
        chosen = own[i].nonzero().flatten().tolist()
        assert i not in chosen
        assert len(chosen) == 2
        assert all(people[j] == people[i] for j in chosen)
    other = seen[1][1].flatten(1)
    for i in range(12):
        chosen = other[i].nonzero().flatten().tolist()
        assert len({people[j] for j in chosen}) == 1
        assert people[chosen[0]] != people[i]


def test_own_masks_beat_others_where_patterns_are_personal():
    """Each of twelve people has evidence at a place of their own."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randperm(64, generator=generator)[:12]
    people = [i // 4 for i in range(48)]
    images, maps = torch.rand(48, 1, 8, 8, generator=generator), torch.zeros(48, 8, 8)
    for i, p in enumerate(people):
        images[i].view(-1)[places[p]] = 30.0
        maps[i].view(-1)[places[p]] = 1.0
    maps += 0.1 * torch.rand(48, 8, 8, generator=generator)
    result = evaluate_person_masks(lambda x: x.flatten(1), images, maps, people, fractions=(1 / 64,), fills=("zero",))
    compared = result.compare()
    assert set(compared["control"]) == {
        "another person's mask",
        "population mean",
        "random pixels",
        "random face pixels",
    }
    assert (compared["p_holm"] < 0.01).all()
    assert (compared["low"] > 0.5).all()


def test_person_masks_of_one_person_or_one_image_raise():
    images, maps = torch.rand(4, 1, 8, 8), torch.rand(4, 8, 8)
    with pytest.raises(ValueError, match="one person only"):
        evaluate_person_masks(lambda x: x.flatten(1), images, maps, ["a"] * 4)
    with pytest.raises(ValueError, match="one image only of: b"):
        half_masks(maps, ["a", "a", "a", "b"])


def test_seconds_are_those_of_an_image(model, monkeypatch):
    """A clock that moves by 9 s at every look: half a second an image for every row of 18."""
    ticks = iter(range(0, 9000, 9))
    monkeypatch.setattr("captum_leam.faithfulness.ranking.time.perf_counter", lambda: float(next(ticks)))
    table = rank_layers(model, torch.rand(18, 3, 16, 16), PEOPLE, n_steps=1).to_frame()
    assert table["seconds"].tolist() == [0.5] * len(table)
