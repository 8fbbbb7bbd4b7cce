//! What is wrong with the fields of a form: a summary with a link to each field, and a sentence
//! at the field.
//!
//! A form has a list of [`FormField`]s and a value of [`Problems`]. Its template calls
//! `parts::problems` below the heading, `problems.marks("ID", "ID-hint")` in the tag of each field,
//! or `problems.describes` in that of a group of choices, and `parts::at_field` after the field.

use core::fmt;

use askama::filters::HtmlSafe;

use super::refusal::sentence;
use crate::error::Error;

/// A field of a form: its name in errors, the id of its element, and its label.
pub(super) type FormField = (&'static str, &'static str, &'static str);

/// What is wrong with a field.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// The name in errors.
    field: &'static str,
    /// The id of the field's element.
    pub(super) id: &'static str,
    pub(super) label: &'static str,
    /// The sentence, which continues the label.
    pub(super) reason: String,
}

/// What is wrong with a form.
#[derive(Clone, Debug)]
pub(super) struct Problems {
    fields: &'static [FormField],
    pub(super) all: Vec<Problem>,
}

impl Problems {
    /// Returns the problems of a form in which nothing is wrong.
    pub(super) const fn none(fields: &'static [FormField]) -> Self {
        Self { fields, all: Vec::new() }
    }

    /// Returns one problem.
    pub(super) fn one(fields: &'static [FormField], field: &str, reason: &str) -> Self {
        let mut problems = Self::none(fields);
        problems.add(field, reason);
        problems
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds what is wrong with a field. Of two sentences on one element, the first stays.
    pub(super) fn add(&mut self, field: &str, reason: &str) {
        let known = self.fields.iter().find(|(its, ..)| *its == field);
        let &(field, id, label) = known.unwrap_or(&("", "main", "Form"));
        if self.of(id).is_none() {
            let end = if reason.ends_with(['.', '?', '!']) { "" } else { "." };
            self.all.push(Problem { field, id, label, reason: format!("{reason}{end}") });
        }
    }

    /// Returns a value of the form. An error of a field is added instead.
    pub(super) fn take<T>(&mut self, result: crate::error::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(Error::Invalid { field, reason }) => {
                self.add(field, &reason);
                None
            }
            Err(other) => {
                self.add("", &other.to_string());
                None
            }
        }
    }

    /// Returns whether something is wrong with a field of this name in errors.
    pub(super) fn has(&self, field: &str) -> bool {
        self.all.iter().any(|problem| problem.field == field)
    }

    /// Returns the title of a page with this form.
    pub(super) fn title(&self, title: &str) -> String {
        if self.is_empty() { title.to_owned() } else { format!("Error: {title}") }
    }

    fn of(&self, id: &str) -> Option<&Problem> {
        self.all.iter().find(|problem| problem.id == id)
    }

    /// Returns the sentence at an element.
    pub(super) fn at_field(&self, id: &str) -> Option<String> {
        self.of(id).map(|problem| sentence(&problem.reason))
    }

    /// Returns the attributes of a field. `hint` is the id of its hint; empty if it has none.
    pub(super) fn marks<'n>(&self, id: &'n str, hint: &'n str) -> Marks<'n> {
        let is_wrong = self.of(id).is_some();
        Marks { id, hint, is_wrong, is_field: true }
    }

    /// Returns the attributes of a group of choices, as [`marks`](Self::marks) does.
    pub(super) fn describes<'n>(&self, id: &'n str, hint: &'n str) -> Marks<'n> {
        Marks { is_field: false, ..self.marks(id, hint) }
    }
}

/// The attributes by which a screen reader finds what is wrong with a field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks<'n> {
    id: &'n str,
    hint: &'n str,
    is_wrong: bool,
    is_field: bool,
}

impl fmt::Display for Marks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, hint, .. } = self;
        if self.is_wrong && self.is_field {
            f.write_str(r#" aria-invalid="true""#)?;
        }
        match (self.is_wrong, hint.is_empty()) {
            (true, true) => write!(f, r#" aria-describedby="{id}-problem""#),
            (true, false) => write!(f, r#" aria-describedby="{id}-problem {hint}""#),
            (false, false) => write!(f, r#" aria-describedby="{hint}""#),
            (false, true) => Ok(()),
        }
    }
}

// It writes its own attributes, with ids that templates name.
impl HtmlSafe for Marks<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [FormField; 2] = [("name", "name", "Name"), ("expires", "lifetime", "Expiry")];

    #[test]
    fn problem_is_found_by_the_id_of_its_field() {
        let mut problems = Problems::none(&FIELDS);
        assert!(problems.is_empty());
        problems.add("expires", "it is late");
        problems.add("expires", "it is odd");
        problems.add("size", "it is 0.");
        assert_eq!(problems.at_field("lifetime").as_deref(), Some("It is late."));
        assert_eq!(problems.at_field("main").as_deref(), Some("It is 0."));
        assert_eq!(problems.at_field("name"), None);
        assert!(problems.has("expires") && !problems.has("name"));
        assert_eq!(problems.all.len(), 2);
        assert_eq!(problems.take(Err::<(), _>(Error::invalid("name", "it is empty"))), None);
        assert_eq!(problems.take(Ok(7)), Some(7));
        assert_eq!(problems.all.last().unwrap().label, "Name");
    }

    #[test]
    fn marks_name_the_problem_and_the_hint() {
        let problems = Problems::one(&FIELDS, "name", "it is empty");
        for (marks, expected) in [
            (problems.marks("name", ""), r#" aria-invalid="true" aria-describedby="name-problem""#),
            (problems.describes("name", "hint"), r#" aria-describedby="name-problem hint""#),
            (problems.marks("note", "note-hint"), r#" aria-describedby="note-hint""#),
            (problems.marks("note", ""), ""),
        ] {
            assert_eq!(marks.to_string(), expected);
        }
    }
}
