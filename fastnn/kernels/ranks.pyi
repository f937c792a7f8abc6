EXCHANGES: dict[int, str]
