"""Draw: charts of figures, and pictures of images, as matplotlib figures in one look."""
