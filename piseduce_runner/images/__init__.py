"""From a disk image, packed in whatever way, to an environment of the site.

`add` puts it all together: `unpack` gets at the image, `survey` says what is in it, `block_map`
what of it matters on a card, and `pack` makes the files that nodes are served.
"""
