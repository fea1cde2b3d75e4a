import matplotlib.pyplot as plt
import numpy as np

from darklens.report.figures import preset_preview


def colour_bars(figure):
    return [a for a in figure.axes if any(t.get_text().endswith("σ") for t in a.get_yticklabels())]


def test_every_class_of_a_preview_has_its_own_symmetric_scale_beside_it():
    """A class a hundred times weaker is as visible as the strong one, and one without substructure has no scale."""
    rng = np.random.default_rng(0)
    images = [rng.random((4, 16, 16)) for _ in range(3)]
    strong = rng.normal(0, 30, (4, 16, 16))
    figure = preset_preview(images, [None, strong, strong / 100], ["no_sub", "strong", "weak"], 0.1)
    drawn = [a.images[0] for a in figure.axes if a.images and a.images[0].get_cmap().name == "RdBu_r"]
    limits = [image.get_clim() for image in drawn]
    assert len(limits) == 8
    assert all(low == -high for low, high in limits)
    assert len(set(limits[:4])) == len(set(limits[4:])) == 1, "one scale for a row"
    for (_, high), residual in ((limits[0], strong), (limits[4], strong / 100)):
        np.testing.assert_allclose(high, np.quantile(np.abs(residual), 0.998), rtol=0.05)
    ticks = [[t.get_text() for t in bar.get_yticklabels()] for bar in colour_bars(figure)]
    assert ticks == [[f"−{high:g} σ", "0", f"+{high:g} σ"] for high in (limits[0][1], limits[4][1])]
    texts = [t.get_text().replace("\n", " ") for a in figure.axes for t in a.texts]
    assert texts.count("minus the same lens without substructure") == 2
    plt.close(figure)
