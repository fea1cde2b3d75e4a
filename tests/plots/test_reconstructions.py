"""Pictures of reconstructions show what was hidden, and what is left."""

import matplotlib.pyplot as plt
import numpy as np

from darklens.plots.reconstructions import rebuilt_images


def test_row_of_an_image_shows_it_what_was_seen_what_was_rebuilt_and_the_difference():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 8, 8))
    hidden = np.broadcast_to(np.arange(8) < 4, (2, 8, 8)).astype(float)
    rebuilt = np.where(hidden > 0, image + 0.5, image)
    figure = rebuilt_images(np.stack([image, hidden, rebuilt], axis=1), ["first", "second"])
    rows = np.array(figure.axes).reshape(2, 4)
    for number, row in enumerate(rows):
        drawn = [axis.images[0].get_array() for axis in row]
        np.testing.assert_array_equal(drawn[0], image[number])
        np.testing.assert_array_equal(np.ma.getmaskarray(drawn[1]), hidden[number] > 0)
        np.testing.assert_array_equal(drawn[2], rebuilt[number])
        np.testing.assert_allclose(drawn[3], np.where(hidden[number] > 0, -0.5, 0))
        scales = {axis.images[0].get_clim() for axis in row[:3]}
        assert len(scales) == 1
        np.testing.assert_allclose(row[3].images[0].get_clim(), (-0.5, 0.5))
        assert row[3].texts[0].get_text() == "±0.5"
    assert [row[0].texts[0].get_text() for row in rows] == ["first", "second"]
    plt.close(figure)


def test_perfect_reconstruction_can_be_drawn():
    figure = rebuilt_images(np.zeros((1, 3, 4, 4)), ["empty"])
    assert len(figure.axes) == 4
    plt.close(figure)
