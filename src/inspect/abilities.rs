//! The variables that a terminal sets in, what it can show out. Asks the terminal nothing.

/// The colours of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Plain characters only: no colours, no bold.
    None,
    /// The 256 of xterm.
    Ansi256,
    /// Any of 24 bits.
    TrueColor,
}

/// How a terminal shows pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pictures {
    /// By characters that are half of one colour and half of another.
    HalfBlocks,
    /// As sixels (DEC VT340).
    Sixel,
    /// By the graphics protocol of kitty.
    Kitty,
}

/// What a terminal with these variables can show; with `NO_COLOR` and in terminals that are not known, plain characters.
pub fn abilities(env: impl Fn(&str) -> Option<String>) -> (Colour, Pictures) {
    let value = |name: &str| env(name).unwrap_or_default();
    let is_set = |name: &str| !value(name).is_empty();
    let (term, program) = (value("TERM"), value("TERM_PROGRAM"));
    if is_set("NO_COLOR") || term == "dumb" {
        return (Colour::None, Pictures::HalfBlocks);
    }

    let pictures = pictures(&term, &program, &value);
    let any_colour = ["truecolor", "24bit"].contains(&value("COLORTERM").as_str())
        || term.ends_with("-direct")
        || ["kitty", "ghostty", "foot", "alacritty", "wezterm"].iter().any(|name| term.contains(name))
        || ["iTerm.app", "WezTerm", "vscode", "ghostty", "mintty"].contains(&program.as_str())
        || ["WT_SESSION", "VTE_VERSION", "KONSOLE_VERSION"].into_iter().any(is_set);
    let some_colours = term.contains("256color")
        || ["xterm", "screen", "tmux", "rxvt", "konsole", "mlterm"].iter().any(|name| term.starts_with(name));
    let colour = match (any_colour, some_colours) {
        (true, _) => Colour::TrueColor,
        (false, true) => Colour::Ansi256,
        (false, false) => Colour::None,
    };
    (colour, pictures)
}

fn pictures(term: &str, program: &str, value: &impl Fn(&str) -> String) -> Pictures {
    // Those that show other terminals inside pass variables on but not pictures.
    let is_inside = ["TMUX", "STY", "ZELLIJ"].iter().any(|name| !value(name).is_empty())
        || term.starts_with("tmux")
        || term.starts_with("screen");
    let is_kitty = ["kitty", "ghostty"].iter().any(|name| term.contains(name))
        || program == "ghostty"
        || !value("KITTY_WINDOW_ID").is_empty();
    let has_sixels = ["foot", "mlterm", "contour", "sixel", "wezterm"].iter().any(|name| term.contains(name))
        || ["iTerm.app", "WezTerm", "mintty"].contains(&program)
        || value("KONSOLE_VERSION").parse().is_ok_and(|version: u32| version >= 220_400);
    match (is_inside, is_kitty, has_sixels) {
        (false, true, _) => Pictures::Kitty,
        (false, false, true) => Pictures::Sixel,
        _ => Pictures::HalfBlocks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> (Colour, Pictures) {
        abilities(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string()))
    }

    #[test]
    fn terminals_are_known_by_their_variables() {
        use Colour::*;
        use Pictures::*;
        let cases: [(&[(&str, &str)], _); 16] = [
            (&[], (None, HalfBlocks)),
            (&[("TERM", "dumb"), ("COLORTERM", "truecolor")], (None, HalfBlocks)),
            (&[("TERM", "vt100")], (None, HalfBlocks)),
            (&[("TERM", "xterm")], (Ansi256, HalfBlocks)),
            (&[("TERM", "xterm-256color")], (Ansi256, HalfBlocks)),
            (&[("TERM", "xterm-256color"), ("COLORTERM", "truecolor")], (TrueColor, HalfBlocks)),
            (&[("TERM", "xterm-256color"), ("NO_COLOR", "1")], (None, HalfBlocks)),
            (&[("TERM", "xterm-256color"), ("NO_COLOR", "")], (Ansi256, HalfBlocks)),
            (&[("TERM", "xterm-kitty")], (TrueColor, Kitty)),
            (&[("TERM", "xterm-ghostty")], (TrueColor, Kitty)),
            (
                &[("TERM", "xterm-256color"), ("KITTY_WINDOW_ID", "1"), ("TMUX", "/tmp/x")],
                (Ansi256, HalfBlocks),
            ),
            (&[("TERM", "screen-256color"), ("TERM_PROGRAM", "iTerm.app")], (TrueColor, HalfBlocks)),
            (&[("TERM", "foot")], (TrueColor, Sixel)),
            (&[("TERM", "xterm-256color"), ("TERM_PROGRAM", "WezTerm")], (TrueColor, Sixel)),
            (&[("TERM", "xterm-256color"), ("KONSOLE_VERSION", "220401")], (TrueColor, Sixel)),
            (&[("TERM", "xterm-256color"), ("KONSOLE_VERSION", "211203")], (TrueColor, HalfBlocks)),
        ];
        for (variables, expected) in cases {
            assert_eq!(of(variables), expected, "{variables:?}");
        }
    }
}
