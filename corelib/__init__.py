from corelib.source_import import install

install()
