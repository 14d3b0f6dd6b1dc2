//! Pages of lists.

use std::future::Future;
use std::time::Duration;

use aquarium_queue::history::{Direction, Listed};
use aquarium_queue::{Error, Key};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::IntoParams;

use super::cursor;
use super::fields::Fields;
use crate::http::Problem;
use crate::ingest::unavailable;

/// The most rows of a page.
pub(super) const MAX: usize = 1_000;
/// The rows of a page, unless something else is asked for.
const DEFAULT: usize = 50;
/// How often the queue is asked for one page, if it comes back short.
const QUESTIONS: usize = 20;
/// How long, after which a short page is as good as it gets.
pub(super) const PATIENCE: Duration = Duration::from_millis(30);

/// How many rows there are on a page, and where it starts.
#[derive(Debug, Clone, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// How many rows at the most; there may be fewer, and still be a next page
    #[param(minimum = 1, maximum = 1000, default = 50, value_type = Option<usize>)]
    pub(super) limit: usize,
    /// Where the page starts: `next` of the one before, which was asked for with the same parameters
    pub(super) cursor: Option<String>,
}

/// Which end of a list comes first.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Ordering {
    /// Which end comes first
    #[param(inline, default = "newest", value_type = Option<Order>)]
    order: Direction,
}

/// Which end of a list comes first
#[derive(Debug, utoipa::ToSchema, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "it is what the document says of `Direction`")]
enum Order {
    /// What was accepted last
    Newest,
    /// What was accepted first
    Oldest,
}

/// What a list is about, as far as its cursors go.
#[derive(Debug)]
pub(super) struct Question(String);

impl Question {
    /// The question that these fields put to a list. They must not have been taken yet.
    pub(super) fn of(list: &str, fields: &Fields) -> Self {
        Self(format!("{list}\n{}", fields.remembered(&["limit", "cursor", "count"])))
    }

    /// The cursor of a place.
    pub(super) fn cursor(&self, place: &[u8]) -> String {
        cursor::encode(&self.0, place)
    }

    /// The place of a cursor.
    pub(super) fn place(&self, cursor: &str) -> Result<Vec<u8>, cursor::Foreign> {
        cursor::decode(&self.0, cursor)
    }
}

impl Paging {
    /// Takes what of it is among `fields`.
    pub(super) fn read(fields: &mut Fields) -> Result<Self, Problem> {
        let limit = fields.number("limit", 1..=MAX)?.unwrap_or(DEFAULT);
        let cursor = fields.text("cursor")?.filter(|cursor| !cursor.is_empty());
        Ok(Self { limit, cursor })
    }

    /// The row that the page starts with.
    pub(super) fn from(&self, question: &Question, fields: &Fields) -> Result<Option<Key>, Problem> {
        let place = self.place(question, fields)?;
        let key = |place: Vec<u8>| place.try_into().map(|key| Key(u64::from_be_bytes(key)));
        place.map(key).transpose().map_err(|_| fields.wrong("cursor", cursor::Foreign))
    }

    /// The place at which the page starts.
    pub(super) fn place(&self, question: &Question, fields: &Fields) -> Result<Option<Vec<u8>>, Problem> {
        let place = self.cursor.as_deref().map(|cursor| question.place(cursor));
        place.transpose().map_err(|foreign| fields.wrong("cursor", foreign))
    }
}

impl Ordering {
    /// Takes it from `fields`.
    pub(super) fn read(fields: &mut Fields) -> Result<Direction, Problem> {
        let known = [("newest", Direction::NewestFirst), ("oldest", Direction::OldestFirst)];
        let order = fields.one_of("order", &known)?.unwrap_or_default();
        Ok(Self { order }.order)
    }
}

/// The cursor of a row.
pub(super) fn next(question: &Question, next: Option<Key>) -> Option<String> {
    next.map(|key| question.cursor(&key.0.to_be_bytes()))
}

/// Asks until the page is full, as long as that is worth it.
pub(super) async fn fill<T, F>(
    limit: usize,
    from: Option<Key>,
    mut ask: impl FnMut(Option<Key>, usize) -> F,
) -> Result<Listed<T>, Problem>
where
    F: Future<Output = Result<Listed<T>, Error>>,
{
    let started = Instant::now();
    let mut page = Listed { items: Vec::new(), next: from };
    for _ in 0..QUESTIONS {
        let listed = ask(page.next, limit - page.items.len()).await.map_err(unavailable)?;
        page.items.extend(listed.items);
        page.next = listed.next;
        if page.next.is_none() || page.items.len() >= limit || started.elapsed() >= PATIENCE {
            break;
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of a hundred rows, of which one question finds two at the most.
    async fn two(from: Option<Key>, limit: usize) -> Result<Listed<u64>, Error> {
        let from = from.map_or(0, |key| key.0);
        let to = (from + 2.min(limit as u64)).min(100);
        Ok(Listed { items: (from..to).collect(), next: (to < 100).then_some(Key(to)) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_is_filled_by_several_questions_but_not_by_any_number() {
        let five = fill(5, None, two).await.unwrap();
        assert_eq!((five.items, five.next), (vec![0, 1, 2, 3, 4], Some(Key(5))));
        let short = fill(1_000, Some(Key(10)), two).await.unwrap();
        assert_eq!((short.items.len(), short.next), (40, Some(Key(50))));
        let last = fill(1_000, Some(Key(98)), two).await.unwrap();
        assert_eq!((last.items, last.next), (vec![98, 99], None));
    }
}
