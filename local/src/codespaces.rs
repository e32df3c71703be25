//! The user's codespaces, and choosing one of them.

mod codespace;
pub mod gh;

use std::io::{self, BufRead, IsTerminal, Write};

use gh_net_common::hello::printable;
use tokio::sync::oneshot;

use crate::exit::{Exit, Explain};
use crate::invoked;
pub use codespace::{Codespace, GitStatus};
use gh::Gh;

/// Why no codespace was chosen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// gh could not list them.
    #[error(transparent)]
    Gh(#[from] gh::Error),
    /// There is nothing to choose from.
    #[error("you have no codespaces")]
    None,
    /// The user can't be asked.
    #[error("no codespace was named, and there is no terminal to choose one on")]
    NoTerminal(Vec<Codespace>),
    /// The user cancelled.
    #[error("no codespace was chosen")]
    Cancelled,
}

impl Explain for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Gh(error) => error.exit(),
            Self::None => Exit::Unreachable,
            Self::NoTerminal(_) | Self::Cancelled => Exit::Usage,
        }
    }

    fn details(&self) -> Option<String> {
        match self {
            Self::Gh(error) => error.details(),
            Self::NoTerminal(list) => Some(list.iter().map(line).collect::<Vec<_>>().join("\n")),
            Self::None | Self::Cancelled => None,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Gh(error) => error.remedy(),
            Self::None => Some("Create one: gh codespace create".to_owned()),
            Self::NoTerminal(_) => Some(format!("Name one: {} NAME", invoked::name())),
            Self::Cancelled => None,
        }
    }
}

/// Lets the user choose one of their codespaces. If there is only one, chooses it and logs its name.
///
/// # Errors
/// See [`Error`].
pub async fn choose() -> Result<String, Error> {
    let mut list = Gh::find().list().await?;
    list.retain(|codespace| !codespace.name.is_empty());
    match list.as_slice() {
        [] => return Err(Error::None),
        [only] => {
            tracing::info!("bridging your only codespace: {}", line(only));
            return Ok(only.name.clone());
        }
        [_, _, ..] => {}
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Error::NoTerminal(list));
    }
    // In a thread of its own: reading from a terminal can't be cancelled, and at exit the runtime would wait for a
    // thread of its pool.
    let (answer, chosen) = oneshot::channel();
    std::thread::spawn(move || answer.send(ask(&list, &mut io::stdin().lock(), &mut io::stderr())));
    chosen.await.ok().flatten().ok_or(Error::Cancelled)
}

/// Asks until the answer matches one codespace; `None` at the end of input.
fn ask(list: &[Codespace], input: &mut dyn BufRead, output: &mut dyn Write) -> Option<String> {
    let mut shown: Vec<&Codespace> = list.iter().collect();
    loop {
        for (number, codespace) in (1..).zip(&shown) {
            writeln!(output, "{number:>3}  {}", line(codespace)).ok()?;
        }
        write!(output, "Which codespace (its number, or part of its name)? ").ok()?;
        output.flush().ok()?;
        let mut answer = String::new();
        if input.read_line(&mut answer).ok()? == 0 {
            writeln!(output).ok()?;
            return None;
        }
        match narrow(list, &shown, answer.trim()) {
            Narrowed::One(codespace) => return Some(codespace.name.clone()),
            Narrowed::Several(fewer) => shown = fewer,
            Narrowed::None => {
                writeln!(output, "No codespace matches {:?}.", answer.trim()).ok()?;
                shown = list.iter().collect();
            }
        }
    }
}

enum Narrowed<'a> {
    One(&'a Codespace),
    Several(Vec<&'a Codespace>),
    None,
}

/// The codespaces that match: a number is one of those shown, a name or part of a line is searched for in all.
fn narrow<'a>(list: &'a [Codespace], shown: &[&'a Codespace], answer: &str) -> Narrowed<'a> {
    let numbered = answer.parse::<usize>().ok().and_then(|number| shown.get(number.checked_sub(1)?));
    if let Some(codespace) = numbered.copied().or_else(|| list.iter().find(|c| c.name == answer)) {
        return Narrowed::One(codespace);
    }
    let words = answer.to_lowercase();
    let matches = |codespace: &&Codespace| line(codespace).to_lowercase().contains(&words);
    match list.iter().filter(matches).collect::<Vec<_>>().as_slice() {
        [] => Narrowed::None,
        [one] => Narrowed::One(one),
        several => Narrowed::Several(several.to_vec()),
    }
}

/// A codespace as one line.
fn line(codespace: &Codespace) -> String {
    let Codespace { name, display_name, repository, state, git_status, last_used_at, .. } = codespace;
    let dirty = if git_status.has_uncommitted_changes { "*" } else { "" };
    let title = if display_name.is_empty() { String::new() } else { format!("  ({display_name})") };
    let used = last_used_at.get(..10).map(|day| format!(", last used {day}")).unwrap_or_default();
    printable(&format!("{name}{title}  {repository} {}{dirty}  {state}{used}", git_status.reference))
        .replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Vec<Codespace> {
        let listed = r#"[
            {"name":"big-fish-x7","displayName":"big fish","owner":"me","repository":"corp/web","state":"Available",
             "gitStatus":{"ref":"main","hasUncommittedChanges":true},"lastUsedAt":"2024-05-01T10:00:00Z","machineName":"m"},
            {"name":"big-crab-q2","repository":"corp/db","state":"Shutdown","gitStatus":{"ref":"dev"},"extra":1},
            {"name":"old-duck","repository":"corp/duck","state":"Shutdown"}
        ]"#;
        serde_json::from_str(listed).unwrap()
    }

    fn asked(typed: &str) -> (Option<String>, String) {
        let mut output = Vec::new();
        let chosen = ask(&list(), &mut typed.as_bytes(), &mut output);
        (chosen, String::from_utf8(output).unwrap())
    }

    #[test]
    fn a_number_a_name_or_a_part_chooses() {
        for (typed, chosen) in [
            ("2\n", "big-crab-q2"),
            ("old-duck\n", "old-duck"),
            ("DUCK\n", "old-duck"),
            ("corp/web\n", "big-fish-x7"),
            ("big\n2\n", "big-crab-q2"),
            ("9\n3\n", "old-duck"),
        ] {
            assert_eq!(asked(typed).0.as_deref(), Some(chosen), "{typed:?}");
        }
    }

    #[test]
    fn the_end_of_input_chooses_nothing() {
        assert_eq!(asked("").0, None);
        assert_eq!(asked("nothing like it\n").0, None);
    }

    #[test]
    fn the_list_shows_what_distinguishes_codespaces() {
        let (_, output) = asked("");
        assert!(
            output
                .contains("  1  big-fish-x7  (big fish)  corp/web main*  Available, last used 2024-05-01\n"),
            "{output}"
        );
    }

    #[test]
    fn without_a_terminal_the_names_are_listed() {
        let error = Error::NoTerminal(list());
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.details().unwrap().contains("big-crab-q2"));
    }
}
