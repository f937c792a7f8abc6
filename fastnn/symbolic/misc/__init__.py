"""What Theano kept under ``theano.misc``."""
