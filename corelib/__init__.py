from corelib.sources import install

install()
