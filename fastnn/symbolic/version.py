"""The version of Theano that the notation follows."""

version = "1.0.5"
