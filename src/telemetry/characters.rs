//! Characters that do more than be shown. What peers send ends up in logs, and logs on terminals.

/// Does it steer a terminal or end a line (controls, C1 among them: a terminal takes U+009B for the
/// start of a command), or change the direction of the text around it? All of them are below U+10000.
pub fn steers(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{61c}'
        )
}
