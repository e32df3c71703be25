//! Where a transport leads, to tell whether two sessions would meet.

/// Where a transport leads: two transports with equal endpoints lead to the same sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Vec<String>);

impl Endpoint {
    /// An endpoint of a kind, which `words` identify among those of this kind.
    pub(crate) fn of<W: AsRef<str>>(kind: &str, words: impl IntoIterator<Item = W>) -> Self {
        let words = words.into_iter().map(|word| word.as_ref().to_owned());
        Self(std::iter::once(kind.to_owned()).chain(words).collect())
    }

    /// The kind, and the words that identify it.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}
