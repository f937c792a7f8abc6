"""Operations on images and signals, a module a kind: ``T.signal``."""
