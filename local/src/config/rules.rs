//! The rules of all layers. Unlike other lists they are not replaced by a layer of higher precedence: its rules come
//! first, in one list. So a flag that denies something opens nothing that the file does not allow.

use super::layer::Layer;
use super::raw::List;
use super::settings::RULES;
use crate::policy::{MAX_RULES, Origin, Rule, Rules, Written};

/// Rules that are not valid.
#[derive(Debug)]
pub(super) struct Invalid {
    /// The flag, the variable, or the file and key.
    pub(super) origin: String,
    /// What is wrong.
    pub(super) problem: String,
}

/// Takes the rules out of the layers.
pub(super) fn take(
    flags: &mut [Layer],
    variables: &mut [Layer],
    file: &mut [Layer],
) -> Result<Rules, Invalid> {
    let flags = flags.iter_mut().map(|layer| (layer, Origin::Flag));
    let variables = variables.iter_mut().map(|layer| (layer, Origin::Variable));
    let file = file.iter_mut().map(|layer| {
        let path = layer.metadata.source.as_ref().and_then(|source| source.file_path());
        let origin = Origin::File(path.map(ToOwned::to_owned).unwrap_or_default());
        (layer, origin)
    });
    let mut list = Vec::new();
    for (layer, origin) in flags.chain(variables).chain(file) {
        let Some(value) = layer.values.remove(RULES) else { continue };
        let name = &layer.metadata.name;
        let named =
            if matches!(origin, Origin::File(_)) { format!("{name}: {RULES}") } else { name.to_string() };
        let wrong = |problem: String| Invalid { origin: named, problem };
        let rules: List<Rule> = match value.deserialize() {
            Ok(rules) => rules,
            Err(error) => return Err(wrong(error.kind.to_string())),
        };
        list.extend(rules.0.into_iter().map(|rule| Written { rule, origin: origin.clone() }));
        if list.len() > MAX_RULES {
            return Err(wrong(format!("there are {} rules; at most {MAX_RULES} are possible", list.len())));
        }
    }
    Ok(Rules::new(list))
}
