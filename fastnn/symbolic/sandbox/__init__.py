"""What Theano kept under ``theano.sandbox``."""
