"""Light network functions: a graph in the Click language, compiled to the kernel's own programs.

`click` reads the language, `elements` know what each element means in the kernel, `compiler`
makes one program of a graph, and `function` runs it in a network namespace of its own.

Source: D3.1 section 3.1; the Click Modular Router (Kohler et al., ACM TOCS 18(3), 2000).
"""
