"""What is multiplied: activations and adjoints as matrices, one file per form. Knows no Keras."""
