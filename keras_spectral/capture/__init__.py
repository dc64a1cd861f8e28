"""From Keras layers to factors: which layers are covered, and what A and Δ of each call are."""
