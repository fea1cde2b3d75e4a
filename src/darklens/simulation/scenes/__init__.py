"""Scenes as a survey sees them: several bands, the deflector's own light, look-alikes, and populations that hang
together."""
