import os
from a import b

@decorated
class C(Base):
    """Doc."""
    x = 1

    async def f(self, *a, **k):
        return f"{a!r:>{3}}"

    def g(self): pass

def main():
	if x:
		yield 1

x = [i for i in y]
