from collections import OrderedDict

from torch import nn

from darklens.models.backbones import timm_network
from darklens.models.heads import Headed, with_latent
from darklens.models.sections import sections, thaw_epochs


def chain(**layers):
    return nn.Sequential(OrderedDict(layers))


def test_children_are_sections_from_the_last_to_the_first():
    network = chain(
        stem=nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2)), act=nn.ReLU(), head=nn.Linear(2, 3)
    )
    assert sections(network) == [
        ["head.weight", "head.bias"],
        ["stem.0.weight", "stem.0.bias", "stem.2.weight", "stem.2.bias"],
    ]


def test_head_of_its_own_comes_before_the_sections_of_the_backbone():
    network = Headed(
        chain(stem=nn.Linear(1, 2, bias=False), body=nn.Linear(2, 4)), nn.Sequential(nn.ReLU(), nn.Linear(4, 3))
    )
    assert sections(network) == [
        ["head.1.weight", "head.1.bias"],
        ["backbone.body.weight", "backbone.body.bias"],
        ["backbone.stem.weight"],
    ]


def test_networks_of_timm_tell_their_own_stages():
    found = sections(timm_network(1, 5, "test_resnet"))
    assert found[0] == ["fc.weight", "fc.bias"]
    assert [{name.split(".")[0] for name in names} for names in found[1:]] == [
        {"layer4"}, {"layer3"}, {"layer2"}, {"layer1"}, {"conv1", "bn1"}
    ]  # fmt: skip
    without = sections(timm_network(1, 5, "test_resnet", head="linear").backbone)
    assert without == found[1:]


def test_both_heads_of_a_distilled_network_are_one_section():
    network = timm_network(1, 5, "levit_128s", arguments={"img_size": 64})
    found = sections(network)
    assert {name.split(".")[0] for name in found[0]} == {"head", "head_dist"}
    assert sorted(n for names in found for n in names) == sorted(n for n, _ in network.named_parameters())


def test_sections_are_the_newest_for_as_long_as_their_share_of_parameters():
    """Head 10, then 30, 20 and 40 of 100 parameters: a tenth of the epochs, three tenths, and so on."""
    network = chain(
        a=nn.Linear(40, 1, bias=False), b=nn.Linear(4, 5, bias=False), c=nn.Linear(5, 6, bias=False),
        d=nn.Linear(9, 1),
    )  # fmt: skip
    assert thaw_epochs(network, 20) == [0, 2, 8, 12]
    assert thaw_epochs(network, 7) == [0, 1, 3, 4]
    assert thaw_epochs(network, 1) == [0, 0, 0, 0]
    assert thaw_epochs(chain(a=nn.Linear(1, 1, bias=False), b=nn.Linear(98, 1)), 5) == [0, 4], "not after the end"


def test_stages_of_timm_are_not_divided_into_blocks():
    """Six sections of ResNet-18: the head, four stages of two blocks, and the stem."""
    assert [len(names) for names in sections(timm_network(1, 5, "resnet18"))] == [2, 15, 15, 15, 12, 3]


def test_own_network_with_a_classifier_is_divided_by_its_children():
    class Own(nn.Sequential):
        def get_classifier(self):
            return self[1]

    assert sections(Own(nn.Linear(1, 2), nn.Linear(2, 3))) == [["1.weight", "1.bias"], ["0.weight", "0.bias"]]


def test_latent_features_thaw_after_the_head_and_before_the_backbone():
    backbone = chain(stem=nn.Linear(1, 2, bias=False), body=nn.Linear(2, 4))
    assert sections(with_latent(backbone, 4, 2, size=3, dropout=0.0)) == [
        ["head.weight", "head.bias"],
        ["backbone.projection.1.weight", "backbone.projection.1.bias", "backbone.projection.2.weight"],
        ["backbone.backbone.body.weight", "backbone.backbone.body.bias"],
        ["backbone.backbone.stem.weight"],
    ]
