"""Networks: `torch.nn.Module`s from images to logits or values. How they are trained is not their business."""
