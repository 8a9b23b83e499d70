"""On real faces and networks: person-specific, and beyond every control but an untrained network, which sanity checks are about."""

import pytest
import torch

from captum_leam import leave_one_out_centroids
from captum_leam.faces import read_crops
from captum_leam.objectives import embed
from captum_leam.patterns import (
    agreement,
    closest_strangers,
    control_maps,
    crop_features,
    pattern_claim,
    person_specificity,
    signatures,
)
from tests.helpers.networks import path_of_four

PER_PERSON = 3  # of two the regions alone cannot be told from the first network's maps


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.ci
def test_overall_maps_of_real_people_are_person_specific(real_dir, real_models):
    files = [
        file for person in sorted((real_dir / "faces").iterdir()) for file in sorted(person.glob("*.png"))[:PER_PERSON]
    ]
    images, people = read_crops(files), [file.parent.name for file in files]
    with torch.no_grad():
        labels = real_models.parser().eval()(images).argmax(1)
    strangers = closest_strangers(crop_features(images), people)
    made = {}
    for name, make in real_models.RECOGNISERS.items():
        model = make().eval()
        maps = path_of_four(model, images, leave_one_out_centroids(embed(model, images, 64), people))
        made[name] = signatures(maps)
        found = person_specificity(made[name], people, permutations=199)
        assert found["same"] >= 0.30
        assert found["different"] <= 0.16
        assert found["auc"] >= 0.90
        assert found.p_value == 0.005
        controls = control_maps(images, people, labels=labels, maps=maps)  # an untrained twin costs as much as the maps
        claim = pattern_claim(
            made[name], people, {c: signatures(m, empty="zero") for c, m in controls.items()}, strangers=strangers
        )
        assert set(claim.table["name"][1:]) == {*controls, "pose"}
        assert claim.holds, claim.sentence()
    both = agreement(made, people).table.iloc[0]
    assert both["above_low"] > 0.1
