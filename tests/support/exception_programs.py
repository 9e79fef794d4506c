# ruff: noqa: E501  # tables of programs
"""Programs that end with an uncaught exception or look as if they did, for stderr_recorder.py.

Their exit code is 1, or 120 if Python cannot flush its output either.
"""

from textwrap import dedent

PLAIN = {
    "division": "print('before')\n1 / 0",
    "in_function": "def f(x):\n    return 1 + (x / 0) * 2\n\ndef g():\n    f(3)\n\ng()",
    "name_suggestion": "number = 1\nprint(nunber)",
    "missing_module": "import nonexistent_module",
    "assertion": "assert 1 == 2",
    "assertion_message": "assert 1 == 2, f'''\nfirst\n  second\n'''",
    "os_error": "open('/nonexistent')",
    "from_stdlib": "import json\n\njson.loads('{')",
    "callback_from_stdlib": "import functools\nfunctools.reduce(lambda a, b:\n    a / b, [1, 0])",
    "multi_line_call": "print(\n    1,\n    int(\n        'x'\n    ),\n)",
    "long_call": "print(\n" + "    1,\n" * 20 + "    int('x'),\n" + "    1,\n" * 20 + ")",
    "string_with_newlines_in_call": "int('''a\n\n  File \"/tmp/main.py\", line 77, in f\nValueError: no\n''')",
    "in_class_body": "class A:\n    1 / 0",
    "in_comprehension": "[1 / n for n in (1, 0)]",
    "in_generator": "def g():\n    yield 1\n    raise StopIteration('x')\n\nlist(g())",
    "in_finally": "try:\n    1 / 0\nfinally:\n    {}['k']",
    "in_with": "import contextlib\nwith contextlib.ExitStack() as s:\n    s.callback(lambda: 1 / 0)",
    "reraised": "def f():\n    try: 1 / 0\n    except ZeroDivisionError: raise\n\nf()",
    "raised_later": "e = ValueError('v')\n\ndef f(): raise e\ntry: f()\nexcept ValueError: pass\nf()",
    "without_traceback": "try: 1 / 0\nexcept Exception as e: x = e\nraise x.with_traceback(None)",
    "stop_iteration": "next(iter([]))",
    "generator_exit": "raise GeneratorExit('g')",
    "base_exception": "class Stop(BaseException): pass\nraise Stop('s')",
    "keyboard_interrupt_subclass": "class Stop(KeyboardInterrupt): pass\nraise Stop('s')",
    "memory_error": "\nx = bytes(10 ** 15)",
    "end_of_input": "input('name? ')",
    "broken_pipe": "import os\nr, w = os.pipe()\nos.close(r)\nos.write(w, b'x')",
    "subprocess_error": "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'exit(3)'], check=True)",
    "tabs": "def f():\n\tif True:\n\t\treturn 1 / 0\nf()",
    "carriage_returns": "x = 1\r\n\r\ndef f():\r\n    1 / 0\r\nf()\r\n",
    "form_feed": "x = 1\n\f\n\fx / 0\n\f",
    "form_feed_in_line": "x = '\f'; y = (1 /\n 0)",
    "separators_in_source": "x = '\u2028\x1c\x85', (1\n / 0)",
    "coding_cookie": "# -*- coding: latin-1 -*-\nraise ValueError('\u20ac')",
    "byte_order_mark": "\ufeff1 / 0",
    "long_line": "x = '" + "y" * 500 + "'; 1 / 0",
    "wide_characters": "s = '\U0001f600\u4f60\u597d' + 1; t = 2",
}  # fmt: skip

MESSAGES = {
    "empty": "raise ValueError",
    "empty_text": "raise ValueError('')",
    "space": "raise ValueError(' ')",
    "newline": "raise ValueError('\\n')",
    "first_line_empty": "raise ValueError('\\nsecond')",
    "trailing_newlines": "raise ValueError('text\\n\\n')",
    "multi_line": "raise ValueError('first\\nsecond\\n\\n  third: x\\n')",
    "colons": "raise ValueError(': a: b: c')",
    "like_a_type": "raise ValueError('KeyError: k')",
    "like_a_header": "raise ValueError('Traceback (most recent call last):')",
    "like_a_header_in_second_line": "raise ValueError('a\\nTraceback (most recent call last):\\n')",
    "like_a_frame": "raise ValueError('a\\n  File \"x\", line 1, in y\\n    z\\nKeyError: k')",
    "like_a_frame_of_main": "raise ValueError('  File \"/tmp/main.py\", line 99, in <module>\\nKeyError: k')",
    "like_a_chain": "raise ValueError('a\\n\\nDuring handling of the above exception, another exception occurred:\\n\\nb')",
    "other_traceback": "raise RuntimeError('child failed: Traceback (most recent call last):\\n  File \"x.py\", line 7, in <module>\\n    a\\nKeyError: k')",
    "other_traceback_in_second_line": "raise RuntimeError('child failed:\\nTraceback (most recent call last):\\n  File \"x.py\", line 7, in <module>\\n    a\\nKeyError: k\\n')",
    "own_traceback": """
        import traceback
        try: {}['k']
        except KeyError: text = traceback.format_exc()
        raise RuntimeError(f'child failed: {text}')
    """,
    "own_traceback_in_handler": """
        import traceback
        def f():
            try: {}['k']
            except KeyError: raise RuntimeError(traceback.format_exc())
        f()
    """,
    "own_traceback_of_function_in_second_line": """
        import traceback
        def f():
            try: {}['k']
            except KeyError: return traceback.format_exc()
        raise RuntimeError('failed:\\n' + f())
    """,
    "child_of_main": """
        import subprocess, sys
        if len(sys.argv) > 1: 1 / 0
        done = subprocess.run([sys.executable, 'main.py', 'child'], capture_output=True, text=True)
        raise RuntimeError(f'child failed: {done.stderr}')
    """,
    "child_with_other_name": """
        import subprocess, sys
        open('other.py', 'w').write('1 / 0')
        done = subprocess.run([sys.executable, 'other.py'], capture_output=True, text=True)
        raise RuntimeError(f'child failed:\\n{done.stderr}')
    """,
    "long": "raise ValueError('x' * 1_100)",
    "unicode": "raise ValueError('\u20ac\U0001f600 \u4f60')",
    "lone_surrogate": r"raise ValueError('a\ud800b')",
    "control_characters": r"raise ValueError('\x00 \x07 \x1b[31mred\x1b[0m \x0b \x0c \x1c \x85 \u2028')",
    "carriage_return": r"raise ValueError('a\rb\r\nc\r')",
    "quotes": "raise ValueError('\"a\" \\'b\\'')",
    "several_arguments": "raise ValueError('a', 2, None)",
    "raising_str": "class E(Exception):\n    def __str__(self): 1 / 0\nraise E",
    "exiting_str": "class E(Exception):\n    def __str__(self): raise SystemExit(0)\nraise E",
    "printing_str": "import sys\nclass E(Exception):\n    def __str__(self):\n        print('inside', file=sys.stderr)\n        return 'm'\nraise E",
    "note": "e = ValueError('v')\ne.add_note('note 1\\nnote 2')\ne.add_note('')\nraise e",
    "note_without_message": "e = ValueError()\ne.add_note('note')\nraise e",
    "note_is_a_traceback": "e = ValueError('v')\ne.add_note('Traceback (most recent call last):\\n  File \"a.py\", line 1, in f\\nKeyError')\nraise e",
    "odd_notes": "e = ValueError('v')\ne.__notes__ = 5\nraise e",
}  # fmt: skip

TYPES = {
    "own_class": "class Mine(Exception): pass\nraise Mine('a', 2)",
    "nested_class": "class A:\n    class B(Exception): pass\nraise A.B",
    "local_class": "def f():\n    class E(Exception): pass\n    raise E('m')\nf()",
    "local_class_without_message": "def f():\n    class E(Exception): pass\n    raise E\nf()",
    "class_of_own_module": "open('helper.py', 'w').write('class E(Exception): pass')\nimport helper\nraise helper.E('m')",
    "unicode_class": "class \u5909\u6570\u00c9(Exception): pass\nraise \u5909\u6570\u00c9('m')",
    "huge_name": "raise type('N' * 1_100, (Exception,), {})('m')",
    "odd_module": "class E(Exception): __module__ = 5\nraise E('m')",
    "other_module": "class E(Exception): __module__ = 'a.b'\nraise E('m')",
    "generic_class": "from typing import Generic, TypeVar\nT = TypeVar('T')\nclass E(Exception, Generic[T]): pass\nraise E[int]('m')",
}  # fmt: skip

CHAINS = {
    "cause": "try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('v') from e",
    "context": "try:\n    {}['k']\nexcept KeyError:\n    raise ValueError('v')",
    "cut_chain": "try:\n    {}['k']\nexcept KeyError:\n    raise ValueError('v') from None",
    "cause_never_raised": "raise ValueError('v') from KeyError('k')",
    "long_chain": """
        def f(n):
            try:
                if n: f(n - 1)
                else: 1 / 0
            except Exception as e: raise ValueError(n) from e
        f(5)
    """,
    "cycle": "a, b = ValueError('a'), ValueError('b')\na.__cause__, b.__cause__ = b, a\nraise a",
    "syntax_error_as_context": "try: eval('1 +')\nexcept SyntaxError: raise ValueError('v')",
    "syntax_error_as_last": "try: 1 / 0\nexcept Exception: eval('1 +')",
    "multi_line_cause": "try:\n    raise KeyError('a\\n\\nb')\nexcept KeyError as e:\n    raise ValueError('c\\n\\nd') from e",
    "cause_with_notes": "try:\n    e = KeyError('a'); e.add_note('n'); raise e\nexcept KeyError as e:\n    raise ValueError('c') from e",
    "pool_process": """
        import multiprocessing as mp
        def f(n):
            return 1 / n
        if __name__ == '__main__':
            with mp.get_context('fork').Pool(1) as pool:
                pool.map(f, [1, 0])
    """,
    "process_pool_executor": """
        import concurrent.futures as cf
        def f(n):
            return 1 / n
        if __name__ == '__main__':
            with cf.ProcessPoolExecutor(1) as pool:
                (future,), _ = cf.wait([pool.submit(f, 0)])
                future.result()
    """,
    "thread_pool_executor": """
        import concurrent.futures as cf
        with cf.ThreadPoolExecutor(1) as pool:
            (future,), _ = cf.wait([pool.submit(lambda: 1 / 0)])
            future.result()
    """,
}  # fmt: skip

GROUPS = {
    "group": "raise ExceptionGroup('g', [ValueError(1)])",
    "base_group": "raise BaseExceptionGroup('g', [KeyboardInterrupt()])",
    "group_of_exit": "raise BaseExceptionGroup('g', [SystemExit(3)])",
    "group_subclass": "class G(ExceptionGroup): pass\nraise G('g', [ValueError(1)])",
    "group_with_own_text": "class G(ExceptionGroup):\n    def __str__(self): return ''\nraise G('g', [ValueError(1)])",
    "nested_groups": "raise ExceptionGroup('g', [ValueError(1), ExceptionGroup('h', [KeyError('k'), ExceptionGroup('i', [OSError()])])])",
    "deep_groups": "e = ValueError(1)\nfor n in range(20): e = ExceptionGroup(f'g{n}', [e])\nraise e",
    "wide_group": "raise ExceptionGroup('g', [ValueError(n) for n in range(30)])",
    "group_message_of_lines": "raise ExceptionGroup('a\\n\\n  b\\n', [ValueError('c\\nd')])",
    "group_message_with_separators": r"raise ExceptionGroup('a\rb\x0bc\u2028d\x85 e\r\nf', [ValueError(1)])",
    "group_message_like_a_group": "raise ExceptionGroup('a\\n  +-+---------------- 1 ----------------\\n', [ValueError(1)])",
    "group_message_empty": "raise ExceptionGroup('', [ValueError(1)])",
    "group_with_note": "e = ExceptionGroup('g', [ValueError(1)])\ne.add_note('n1\\nn2')\nraise e",
    "note_in_group": "e = ValueError(1)\ne.add_note('n1\\nn2')\nraise ExceptionGroup('g', [e])",
    "group_of_raised": """
        errors = []
        for n in range(3):
            try: 1 / 0
            except Exception as e: errors.append(e)
        raise ExceptionGroup('g', errors)
    """,
    "group_of_caused": """
        errors = []
        try:
            try: 1 / 0
            except Exception as e: raise KeyError('k') from e
        except Exception as e: errors.append(e)
        raise ExceptionGroup('g', errors)
    """,
    "group_of_syntax_error": """
        errors = []
        try: eval('1 +')
        except SyntaxError as e: errors.append(e)
        raise ExceptionGroup('g', errors)
    """,
    "group_from_plain": "try: 1 / 0\nexcept Exception as e:\n    raise ExceptionGroup('g', [e]) from e",
    "group_in_handler": "try: 1 / 0\nexcept Exception as e:\n    raise ExceptionGroup('g', [ValueError(1)])",
    "plain_from_group": "try: raise ExceptionGroup('g', [ValueError(1)])\nexcept Exception as e:\n    raise KeyError('k') from e",
    "plain_in_group_handler": "try: raise ExceptionGroup('g', [ValueError(1)])\nexcept Exception as e:\n    {}['k']",
    "group_from_group": "try: raise ExceptionGroup('g', [ValueError(1)])\nexcept Exception as e:\n    raise ExceptionGroup('h', [ValueError(2)]) from e",
    "except_star": "try: raise ExceptionGroup('g', [ValueError(1), KeyError('k')])\nexcept* ValueError: pass",
    "raise_in_except_star": "try: raise ExceptionGroup('g', [ValueError(1), KeyError('k')])\nexcept* ValueError: 1 / 0",
    "task_group": """
        import asyncio
        async def fail(n):
            await asyncio.sleep(0)
            raise ValueError(n)
        async def main():
            async with asyncio.TaskGroup() as group:
                group.create_task(fail(1))
                group.create_task(fail(2))
        asyncio.run(main())
    """,
    "group_in_function": "def f():\n    raise ExceptionGroup('g', [ValueError(1)])\n\nf()",
    "group_with_note_like_its_end": "e = ExceptionGroup('g', [ValueError(1)])\ne.add_note('Traceback (most recent call last):\\n  File \"/tmp/main.py\", line 7, in <module>\\nE: f')\nraise e",
}  # fmt: skip

SYNTAX = {
    "syntax": "print('never')\nx = = 1",
    "indentation": "if True:\nprint(1)",
    "unexpected_indent": "x = 1\n  y = 2",
    "tab": "if True:\n        x = 1\n\ty = 2",
    "unclosed": "print((1, 2",
    "unterminated_triple_quote": "x = 1\ny = '''abc\n\nd",
    "forgotten_comma": "x = [1,\n     foo bar,\n     3]",
    "return_outside": "\nreturn 1",
    "global_after_use": "def f():\n    x = 1\n    global x",
    "invalid_character": "x = \u201cabc\u201d",
    "invalid_hex_escape": "x = '\\x1'",
    "null_byte": "x = 1\ny = '\x00'",
    "null_byte_alone": "\x00",
    "unknown_coding": "# coding: nonsense\nx = 1",
    "coding_that_fails": "# coding: ascii\nx = '\u20ac'",
    "byte_order_mark_and_coding": "\ufeff# coding: latin-1\nx = 1",
    "future_import_late": "x = 1\nfrom __future__ import annotations",
    "syntax_after_warnings": "a = '\\d'\nb = 1 is 1\nc = = 1",
    "syntax_after_many_warnings": "a = '\\d'\n" * 5 + "if True:\nx",
    "warning_of_odd_line": "a = '''\\d\n  File \"/tmp/main.py\", line 77\nSyntaxError: no\n'''\nb = = 1",
    "long_syntax_line": "x = [" + "1, " * 400 + "= 1]",
    "too_many_parentheses": "(" * 300 + ")" * 300,
    "too_many_indents": "".join(" " * n + "if 1:\n" for n in range(110)) + " " * 110 + "pass",
    "deep_unary": "x = " + "-" * 50_000 + "1",
    "deep_sum": "x = " + "+".join("1" for _ in range(30_000)),
    "huge_integer": "x = " + "9" * 4_400,
    "syntax_of_carriage_returns": "x = 1\r\ny = = 2\r\n",
    "syntax_with_tabs": "if 1:\n\tx = = 2",
    "syntax_of_own_raise": "raise SyntaxError('own')",
    "syntax_of_own_raise_without_message": "raise SyntaxError",
    "syntax_of_own_raise_with_place": "raise SyntaxError('own', ('/tmp/other.py', 7, 3, 'x y z', 7, 5))",
    "syntax_of_own_raise_in_main": "raise SyntaxError('own', ('/tmp/main.py', 7, 3, 'x y z', 7, 5))",
    "syntax_of_own_raise_with_file": "e = SyntaxError('own')\ne.filename = 'f.py'\nraise e",
    "syntax_in_exec": "\nexec('a b')",
    "syntax_in_eval": "\ndef f():\n    eval('1 +')\nf()",
    "syntax_in_import": "open('helper.py', 'w').write('x = 1\\ny = = 2')\n\nimport helper",
    "indentation_in_import": "open('helper.py', 'w').write('if 1:\\nx')\n\nimport helper",
    "syntax_in_nested_import": "open('a.py', 'w').write('\\nimport b')\nopen('b.py', 'w').write('\\n\\n\\n= 2')\nimport a",
    "syntax_in_ast": "import ast\n\nast.parse('a b')",
    "syntax_in_compile_of_main": "\ncompile('\\n\\n\\n\\na b', '/tmp/main.py', 'exec')",
    "syntax_in_literal": "import ast\nast.literal_eval('1 +')",
    "syntax_in_import_of_main": """
        import sys
        if __name__ == '__main__':
            open('main.py', 'w').write('= 1')
            import main
    """,
}  # fmt: skip

RECURSION = {
    "recursion": "def f():\n    f()\nf()",
    "mutual_recursion": "import sys\nsys.setrecursionlimit(30)\ndef f(): g()\ndef g():\n    f()\nf()",
    "recursion_in_repr": "class A:\n    def __repr__(self): return repr(self)\nrepr(A())",
    "recursion_in_str": "class E(Exception):\n    def __str__(self): return str(self)\nraise E",
    "recursion_in_comparison": "a = []; a.append(a); b = []; b.append(b)\na == b",
    "repeated_frames": "def f(n):\n    if n: f(n - 1)\n    else: 1 / 0\nf(20)",
}  # fmt: skip

CODE_OF_OTHER_FILES = {
    "exec": "\nexec('1 / 0')",
    "exec_with_name": "exec(compile('\\n1 / 0', 'other.py', 'exec'))",
    "exec_with_name_of_main": "exec(compile('\\n\\n\\n1 / 0', '/tmp/main.py', 'exec'))",
    "exec_with_unusual_name": "exec(compile('1 / 0', 'a\", line 7, in b', 'exec'))",
    "exec_with_newline_in_name": "exec(compile('1 / 0', 'a\\nb', 'exec'))",
    "exec_with_relative_name": "exec(compile('\\n\\n1 / 0', 'main.py', 'exec'))",
    "exec_of_function": "exec('def f():\\n    1 / 0')\n\nf()",
    "import": "open('helper.py', 'w').write('1 / 0')\nimport helper",
    "function_of_helper": "open('helper.py', 'w').write('def f(g):\\n    g()')\nimport helper\n\nhelper.f(lambda: 1 / 0)",
    "run_path": "import runpy\nopen('helper.py', 'w').write('\\n1 / 0')\nrunpy.run_path('helper.py')",
    "run_path_of_main": "import runpy\nif __name__ == '__main__':\n    runpy.run_path('main.py')\n1 / 0",
    "import_of_main": "import main\n1 / 0",
    "import_machinery": "import importlib\nimportlib.import_module('nonexistent')",
    "removed_source": "import os\nos.remove('main.py')\n1 / 0",
    "overwritten_source": "open('main.py', 'w').write('x\\n' * 9)\n1 / 0",
    "binary_source": "open('main.py', 'wb').write(b'\\xff\\x00' * 99)\n1 / 0",
    "changed_directory": "import os\nos.mkdir('d'); os.chdir('d')\n1 / 0",
    "removed_directory": "import os\nos.mkdir('d'); os.chdir('d'); os.rmdir('../d')\n1 / 0",
    "asyncio": "import asyncio\nasync def main():\n    await asyncio.sleep(0)\n    1 / 0\nasyncio.run(main())",
    "asyncio_gather": """
        import asyncio
        async def fail(n):
            await asyncio.sleep(0)
            raise ValueError(n)
        async def main():
            await asyncio.gather(fail(1), fail(2))
        asyncio.run(main())
    """,
    "asyncio_timeout": """
        import asyncio
        async def main():
            async with asyncio.timeout(.01):
                await asyncio.sleep(5)
        asyncio.run(main())
    """,
    "trace_hook": "import sys\ndef hook(*a):\n    1 / 0\nsys.settrace(hook)\ndef f(): pass\nf()",
    "signal_handler": "import signal\ndef handler(*a):\n    raise TimeoutError('alarm')\nsignal.signal(14, handler)\nsignal.raise_signal(14)",
    "audit_hook": "import sys\ndef hook(name, args):\n    if name == 'own': raise PermissionError('no')\nsys.addaudithook(hook)\nsys.audit('own')",
    "descriptor": "class D:\n    def __set_name__(self, owner, name): 1 / 0\nclass A:\n    d = D()",
    "ctypes_callback": "import ctypes\nf = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 1 / 0)\nf()\nraise ValueError('after')",
    "warning_as_error": "import warnings\nwarnings.simplefilter('error')\nwarnings.warn('w')",
}  # fmt: skip

REEXEC = {
    f"reexec_{name}": f"""
        import os, sys
        if not os.environ.get('AGAIN'):
            os.environ.update(AGAIN='1', {environment})
            os.execv(sys.executable, ['python3', {arguments}])
        f = open('/dev/null')
        def fail(): 1 / 0
        fail()
    """
    for name, environment, arguments in (
        ("relative", "", "'./main.py'"),
        ("absolute", "", "'/tmp/../tmp/main.py'"),
        ("module", "", "'-m', 'main'"),
        ("profile", "", "'-m', 'cProfile', 'main.py'"),
        ("development_mode", "", "'-X', 'dev', 'main.py'"),
        ("tracemalloc", "", "'-X', 'tracemalloc=9', '-W', 'always', 'main.py'"),
        ("no_carets", "", "'-X', 'no_debug_ranges', 'main.py'"),
        ("command", "", "'-c', 'import main'"),
        ("warnings", "PYTHONWARNINGS='error'", "'main.py'"),
        ("colors", "PYTHON_COLORS='1'", "'main.py'"),
        ("no_color", "NO_COLOR='1', FORCE_COLOR='1'", "'main.py'"),
        ("ascii", "PYTHONIOENCODING='ascii'", "'main.py'"),
    )
} | {
    "reexec_other_script": "import os, sys\nopen('other.py', 'w').write('\\n1 / 0')\nos.execv(sys.executable, ['python3', 'other.py'])",
    "reexec_broken_main": "import os, sys\nprint('text', file=sys.stderr)\nopen('main.py', 'w').write('\\n= 0')\nos.execv(sys.executable, ['python3', 'main.py'])",
    "reexec_broken_module": "import os, sys\nopen('main.py', 'w').write('\\n= 0')\nos.execv(sys.executable, ['python3', '-m', 'main'])",
    "reexec_other_broken_module": "import os, sys\nopen('other.py', 'w').write('\\n= 0')\nos.execv(sys.executable, ['python3', '-m', 'other'])",
    "reexec_missing_module": "import os, sys\nos.execv(sys.executable, ['python3', '-m', 'nonexistent'])",
    "reexec_warning_as_syntax_error": "import os, sys\nif not os.environ.get('A'):\n    os.environ['A'] = '1'\n    os.execv(sys.executable, ['python3', '-W', 'error', 'main.py'])\n'\\d'",
    "reexec_package": "import os, sys\nos.mkdir('p'); open('p/__main__.py', 'w').write('\\n1 / 0')\nos.execv(sys.executable, ['python3', 'p'])",
    "reexec_stdin": "import os, sys\nr, w = os.pipe(); os.write(w, b'1 / 0'); os.close(w); os.dup2(r, 0)\nos.execv(sys.executable, ['python3', '-'])",
}  # fmt: skip

AROUND = {  # other text in stderr before or after the traceback
    "text_before": "import sys\nprint('text', file=sys.stderr)\n1 / 0",
    "partial_line_before": "import sys\nsys.stderr.write('working... ')\n1 / 0",
    "indented_partial_line_before": "import sys\nsys.stderr.write('    working... ')\n1 / 0",
    "progress_before": "import sys\nfor n in range(3): sys.stderr.write(f'\\r  {n}/3 [====    ]')\n1 / 0",
    "partial_line_before_group": "import sys\nsys.stderr.write('working... ')\nraise ExceptionGroup('g', [ValueError(1)])",
    "half_traceback_before": "import sys\nprint('Traceback (most recent call last):\\n  File \"/tmp/main.py\", line 9, in <module>', file=sys.stderr)\n1 / 0",
    "frame_before": "import sys\nprint('  File \"/tmp/main.py\", line 9, in <module>', file=sys.stderr)\n1 / 0",
    "warning_before": "import warnings\nwarnings.warn('w')\n1 / 0",
    "syntax_warning_before": "a = '\\d'\n1 / 0",
    "logged_exception_before": "import logging\ntry: {}['k']\nexcept KeyError: logging.exception('text')\n1 / 0",
    "logged_exception_of_function_before": "import logging\ndef f():\n    try: {}['k']\n    except KeyError: logging.exception('text')\nf()\n1 / 0",
    "printed_exception_before": "import traceback\ntry: {}['k']\nexcept KeyError: traceback.print_exc()\n1 / 0",
    "printed_group_before": "import traceback\ntry: raise ExceptionGroup('g', [ValueError(1)])\nexcept Exception: traceback.print_exc()\n1 / 0",
    "printed_syntax_error_before": "import traceback\ntry: eval('1 +')\nexcept Exception: traceback.print_exc()\n1 / 0",
    "printed_stack_before": "import traceback\ntraceback.print_stack()\n1 / 0",
    "fault_dump_before": "import faulthandler\nfaulthandler.dump_traceback()\n1 / 0",
    "printed_often_before": "import traceback\nfor n in range(5):\n    try: {}[n]\n    except KeyError: traceback.print_exc()\nraise ValueError(5)",
    "thread_before": "import threading\nt = threading.Thread(target=lambda: 1 / 0, name='T')\nt.start()\nt.join()\nraise ValueError('main')",
    "thread_after": "import threading\ndef f():\n    threading.main_thread().join()\n    {}['k']\nthreading.Thread(target=f).start()\n1 / 0",
    "thread_group_after": "import threading\ndef f():\n    threading.main_thread().join()\n    raise ExceptionGroup('g', [ValueError(1)])\nthreading.Thread(target=f).start()\n1 / 0",
    "thread_after_multi_line_message": "import threading\ndef f():\n    threading.main_thread().join()\n    {}['k']\nthreading.Thread(target=f).start()\nraise ValueError('a\\nb\\n')",
    "low_level_thread_with_exec_before": "import _thread, time\nx = _thread.allocate_lock(); x.acquire()\n_thread.start_new_thread(exec, ('x.release(); {}[0]', {'x': x}))\nx.acquire()\nwhile _thread._count(): time.sleep(.01)\n1 / 0",
    "process_before": "import multiprocessing as mp\ndef f(): {}['k']\np = mp.get_context('fork').Process(target=f, name='P')\np.start()\np.join()\n1 / 0",
    "process_after": "import atexit, multiprocessing\nmp = multiprocessing.get_context('fork')\nended = mp.Event()\natexit.register(ended.set)\ndef f():\n    ended.wait()\n    {}['k']\nmp.Process(target=f, name='P').start()\n1 / 0",
    "unraisable_before": "class C:\n    def __del__(self): {}['k']\nC()\n1 / 0",
    "unraisable_after": "class C:\n    def __del__(self): {}['k']\nc = C()\n1 / 0",
    "unraisable_after_empty_message": "class C:\n    def __del__(self): {}['k']\nc = C()\nraise ValueError",
    "atexit_after": "import atexit\n@atexit.register\ndef f(): {}['k']\n1 / 0",
    "atexit_print_after_group": "import atexit, sys\natexit.register(print, 'bye', file=sys.stderr)\nraise ExceptionGroup('g', [ValueError(1)])",
    "weak_reference_after": "import weakref\nclass C: pass\nc = C()\nweakref.finalize(c, lambda: {}['k'])\n1 / 0",
    "generator_close_after": "def g():\n    try: yield\n    finally: {}['k']\nx = g(); next(x)\n1 / 0",
    "task_never_retrieved_after": """
        import asyncio
        async def fail(): {}['k']
        async def main():
            global task
            task = asyncio.create_task(fail())
            await asyncio.sleep(.01)
            1 / 0
        asyncio.run(main())
    """,
    "task_destroyed_after": """
        import asyncio
        loop = asyncio.new_event_loop()
        async def wait(): await asyncio.sleep(9)
        async def main():
            global task
            task = loop.create_task(wait())
            await asyncio.sleep(.01)
            1 / 0
        loop.run_until_complete(main())
    """,
    "future_never_retrieved_after": "import asyncio\nloop = asyncio.new_event_loop()\nf = loop.create_future()\nf.set_exception(KeyError('k'))\n1 / 0",
    "coroutine_never_awaited": "async def f(): pass\nx = f()\n1 / 0",
    "leaked_shared_memory_after": "from multiprocessing import shared_memory\ns = shared_memory.SharedMemory(create=True, size=9)\n1 / 0",
    "excepthook_fails": "import sys\ndef hook(*a): raise OSError('in hook')\nsys.excepthook = hook\n1 / 0",
    "excepthook_prints_traceback": "import sys, traceback\nsys.excepthook = lambda *a: traceback.print_exception(*a)\n1 / 0",
    "excepthook_logs": "import logging, sys\nsys.excepthook = lambda *a: logging.error('uncaught', exc_info=a)\n1 / 0",
    "excepthook_prints_more": "import sys\ndef hook(*a):\n    print('sorry', file=sys.stderr)\n    sys.__excepthook__(*a)\nsys.excepthook = hook\n1 / 0",
    "excepthook_deleted": "import sys\ndel sys.excepthook\n1 / 0",
    "excepthook_none": "import sys\nsys.excepthook = None\n1 / 0",
    "color_forced": "import os\nos.environ['FORCE_COLOR'] = '1'\nraise ValueError('a\\nb')",
    "color_forced_syntax": "import os\nos.environ['FORCE_COLOR'] = '1'\nexec('a b')",
    "color_forced_group": "import os\nos.environ['FORCE_COLOR'] = '1'\nraise ExceptionGroup('g', [ValueError(1)])",
    "color_forced_chain": "import os\nos.environ['FORCE_COLOR'] = '1'\ntry: 1 / 0\nexcept Exception: {}['k']",
    "traceback_limit_1000": "import sys\nsys.tracebacklimit = 1000\ndef f(): 1 / 0\nf()",
    "traceback_limit_2": "import sys\nsys.tracebacklimit = 2\ndef f(): 1 / 0\nf()",
    "stdout_as_stderr": "import sys\nsys.stdout = sys.stderr\nprint('out')\n1 / 0",
    "no_traceback_module": "import sys\nsys.modules['traceback'] = None\nraise ValueError('a\\nb')",
    "no_traceback_module_and_group": "import sys\nsys.modules['traceback'] = None\nraise ExceptionGroup('g', [ValueError(1)])",
    "no_traceback_module_and_recursion": "import sys\nsys.modules['traceback'] = None\ndef f(): f()\nf()",
    "unittest_crash": "import unittest\nclass T(unittest.TestCase):\n    def test_x(self): 1 / 0\nunittest.main(exit=False)\nraise ValueError('after')",
    "child_before": "import subprocess, sys\nsubprocess.run([sys.executable, '-c', '1 / 0'])\nraise ValueError('after')",
    "forked_child_before": "import os\nif os.fork() == 0: {}['k']\nos.wait()\n1 / 0",
    "full_stdout_after": "import sys\nsys.stdout = open('/dev/full', 'w')\nprint('x')\n1 / 0",
    "resource_warnings_after": "import warnings\nwarnings.simplefilter('always')\nf = open('/dev/null')\n1 / 0",
}  # fmt: skip

HANDLED = {  # no uncaught exception, exit code 1
    "exit_1": "exit(1)",
    "exit_text": "import sys; sys.exit('text')",
    "exit_text_like_an_exception": "import sys; sys.exit('ValueError: text')",
    "exit_text_like_a_syntax_error": "import sys; sys.exit('SyntaxError: text')",
    "exit_text_of_lines": "import sys; sys.exit('a\\nb: c\\n')",
    "exit_in_handler": "try: 1 / 0\nexcept Exception: raise SystemExit(1)",
    "exit_text_of_error": "import sys\ntry: 1 / 0\nexcept Exception as e: sys.exit(f'error: {e}')",
    "exit_from_error": "try: 1 / 0\nexcept Exception as e: raise SystemExit(f'error: {e}') from e",
    "os_exit": "import os; os._exit(1)",
    "warning_and_exit": "import warnings\nwarnings.warn('w')\nexit(1)",
    "error_in_thread": "import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()\nexit(1)",
    "exec_in_thread": "import threading\nt = threading.Thread(target=exec, args=('1 / 0',))\nt.start()\nt.join()\nexit(1)",
    "exec_in_low_level_thread": "import _thread, time\nx = _thread.allocate_lock(); x.acquire()\n_thread.start_new_thread(exec, ('x.release(); {}[0]', {'x': x}))\nx.acquire()\nwhile _thread._count(): time.sleep(.01)\nexit(1)",
    "error_in_process": "import multiprocessing as mp, sys\ndef f(): {}['k']\np = mp.get_context('fork').Process(target=f)\np.start()\np.join()\nsys.exit(p.exitcode)",
    "error_in_atexit": "import atexit\natexit.register(lambda: 1 / 0)\nexit(1)",
    "exec_in_atexit": "import atexit\natexit.register(exec, '1 / 0', {})\nexit(1)",
    "exec_in_finalizer": "class C:\n    def __del__(self): exec('1 / 0')\nC()\nexit(1)",
    "error_in_finalizer": "class C:\n    def __del__(self): 1 / 0\nc = C()\nexit(1)",
    "printed_in_function": "import sys, traceback\ndef main():\n    try: 1 / 0\n    except Exception:\n        traceback.print_exc()\n        sys.exit(1)\nmain()",
    "printed_group_in_function": "import sys, traceback\ndef main():\n    try: raise ExceptionGroup('g', [ValueError(1)])\n    except Exception:\n        traceback.print_exc()\n        sys.exit(1)\nmain()",
    "printed_syntax_error_in_function": "import sys, traceback\ndef main():\n    try: compile('a b', '/tmp/main.py', 'exec')\n    except Exception:\n        traceback.print_exc()\n        sys.exit(1)\nmain()",
    "printed_only": "import sys, traceback\ntry: 1 / 0\nexcept Exception as e:\n    print(*traceback.format_exception_only(e), file=sys.stderr)\n    sys.exit(1)",
    "printed_limited": "import sys, traceback\ndef f(): 1 / 0\ntry: f()\nexcept Exception:\n    traceback.print_exc(limit=-1)\n    sys.exit(1)",
    "logged_in_function": "import logging, sys\ndef main():\n    try: 1 / 0\n    except Exception:\n        logging.exception('failed')\n        return 1\nsys.exit(main())",
    "printed_stack": "import traceback\ntraceback.print_stack()\nexit(1)",
    "unittest": "import unittest\nclass T(unittest.TestCase):\n    def test_x(self): self.assertEqual(1, 2)\n    def test_y(self): 1 / 0\nunittest.main()",
    "unittest_of_missing": "import unittest\nunittest.main(module=None, argv=['x', 'nonexistent'])",
    "unittest_discovery": "open('test_a.py', 'w').write('1 / 0')\nimport unittest\nunittest.main(module=None, argv=['x', 'discover'])",
    "doctest_on_stderr": "import doctest, sys\nsys.stdout = sys.stderr\ndef f():\n    '''\n    >>> 1 / 0\n    1\n    '''\nsys.exit(doctest.testmod().failed)",
    "argument_parser": "import argparse\nargparse.ArgumentParser(exit_on_error=True).exit(1, 'usage: x\\n')",
    "asyncio_task_lost": """
        import asyncio
        async def fail(): 1 / 0
        async def main():
            global task
            task = asyncio.create_task(fail())
            await asyncio.sleep(.01)
        asyncio.run(main())
        exit(1)
    """,
    "executor_callback": """
        import concurrent.futures as cf, threading
        registered = threading.Event()
        with cf.ThreadPoolExecutor(1) as pool:
            pool.submit(registered.wait).add_done_callback(lambda f: 1 / 0)
            registered.set()
        exit(1)
    """,
    "fault_dump": "import faulthandler\nfaulthandler.dump_traceback()\nexit(1)",
}  # fmt: skip

MISREAD = {  # programs whose exception stderr does not show, each with what the parser reads instead
    "name_with_space": ("raise type('My Error', (Exception,), {})('m')", None),
    "name_with_colon": ("raise type('My: Error', (Exception,), {})('m')", ("My", "Error: m", 1)),
    "empty_name": ("raise type('', (Exception,), {})('m')", None),
    "reexec_other_script_syntax": ("import os, sys\nopen('other.py', 'w').write('\\n= 0')\nos.execv(sys.executable, ['python3', 'other.py'])", None),
    "atexit_print_after": ("import atexit, sys\natexit.register(print, 'bye', file=sys.stderr)\n1 / 0", ("ZeroDivisionError", "division by zero\nbye", 3)),
    "excepthook_prints_in_short": ("import sys\nsys.excepthook = lambda t, v, tb: print(f'{t.__name__}: {v}', file=sys.stderr)\n1 / 0", None),
    "traceback_limit_1": ("import sys\nsys.tracebacklimit = 1\ndef f(): 1 / 0\nf()", None),
    "traceback_limit_0": ("import sys\nsys.tracebacklimit = 0\ndef f(): 1 / 0\nf()", None),
    "stderr_replaced": ("import io, sys\nsys.stderr = io.StringIO()\n1 / 0", None),
    "stderr_none": ("import sys\nsys.stderr = None\n1 / 0", None),
    "stderr_closed": ("import sys\nsys.stderr.close()\n1 / 0", None),
    "stderr_strict_ascii": ("import sys\nsys.stderr.reconfigure(encoding='ascii', errors='strict')\nraise ValueError('\u20ac')", None),
    "stderr_strict_ascii_source": ("import sys\nsys.stderr.reconfigure(encoding='ascii', errors='strict')\nx = '\u20ac', 1 / 0", None),
    "stderr_as_stdout": ("import sys\nsys.stderr = sys.stdout\n1 / 0", None),
    "no_traceback_module_and_syntax": ("import sys\nsys.modules['traceback'] = None\nexec('a b')", ("SyntaxError", "invalid syntax (<string>, line 1)", 3)),
    "printed_at_module_level": (
        "import sys, traceback\ntry: 1 / 0\nexcept Exception:\n    traceback.print_exc()\n    sys.exit(1)",
        ("ZeroDivisionError", "division by zero", 2),
    ),
    "printed_at_module_level_and_text": (
        "import sys, traceback\ntry: 1 / 0\nexcept Exception:\n    traceback.print_exc()\n    sys.exit('failed')",
        ("ZeroDivisionError", "division by zero\nfailed", 2),
    ),
    "logged_at_module_level": (
        "import logging, sys\ntry: 1 / 0\nexcept Exception:\n    logging.exception('failed')\n    sys.exit(1)",
        ("ZeroDivisionError", "division by zero", 2),
    ),
    "forked_child": ("import os\nif os.fork() == 0: {}['k']\nos.wait()\nexit(1)", ("KeyError", "'k'", 2)),
    "child_script": (
        "import subprocess, sys\nsys.exit(subprocess.run([sys.executable, '-c', '1 / 0']).returncode)",
        ("ZeroDivisionError", "division by zero", None),
    ),
    "interactive_console": (
        "import code, io, sys\nsys.stdin = io.StringIO('1 / 0\\n')\ncode.interact(banner='', exitmsg='')\nexit(1)",
        ("ZeroDivisionError", "division by zero\n", None),
    ),
    "exit_text_of_compiler": ("exit('MemoryError')", ("MemoryError", "", None)),
    "own_traceback_in_second_line": (
        "import traceback\ntry: {}['k']\nexcept KeyError: text = traceback.format_exc()\nraise RuntimeError('failed:\\n' + text)",
        ("KeyError", "'k'\n", 2),
    ),
}  # fmt: skip

_PROGRAMS = {
    **PLAIN, **MESSAGES, **TYPES, **CHAINS, **GROUPS, **SYNTAX, **RECURSION, **CODE_OF_OTHER_FILES, **REEXEC, **AROUND, **HANDLED,
    **{name: program for name, (program, _) in MISREAD.items()},
}  # fmt: skip
PROGRAMS = {name: dedent(text).lstrip("\n") if text.startswith("\n    ") else text for name, text in _PROGRAMS.items()}
