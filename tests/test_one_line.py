from forclip.one_line import one_line


def test_lines_are_joined_and_other_white_space_stays() -> None:
    assert one_line(ValueError(" no such file: 'two  spaces\t[a].yaml'\n\n  line 2\r\n")) == (
        "no such file: 'two  spaces\t[a].yaml' line 2"
    )
