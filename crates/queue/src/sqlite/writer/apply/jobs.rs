//! Replays in bulk: what is stored of them changes here alone.

use aquarium_delivery::{ReplayId, Timestamp};
use rusqlite::params;

use super::super::super::history::jobs::{insert, one, place};
use super::super::super::schema::{stored, unsigned};
use super::super::NewJob;
use super::Tables;
use crate::history::{Job, JobState, JobStep, MOST_JOBS};
use crate::{Error, Key};

impl Tables<'_> {
    pub(super) fn create_job(&mut self, new: &NewJob) -> rusqlite::Result<Result<Job, Error>> {
        let connection = self.connection;
        if let Some(known) = one(connection, &new.id)? {
            return Ok(Ok(known));
        }
        connection
            .prepare_cached(
                "DELETE FROM jobs WHERE number IN
                 (SELECT number FROM jobs WHERE state != 'running' ORDER BY number
                  LIMIT max(0, (SELECT count(*) FROM jobs) - ?))",
            )?
            .execute([stored(MOST_JOBS - 1)])?;
        let kept: usize = connection.query_row("SELECT count(*) FROM jobs", [], |row| unsigned(row, 0))?;
        if kept >= MOST_JOBS {
            return Ok(Err(Error::Unavailable(format!("{kept} replays are running").into())));
        }
        let end = place(&new.what, self.next_event);
        let job = Job {
            id: new.id,
            what: new.what.clone(),
            created_at: new.at,
            state: JobState::Running,
            state_since: new.at,
            next: None,
            end: Key(end),
            start: Key(new.start.unwrap_or(end).min(end)),
            replayed: 0,
            passed_over: 0,
        };
        insert(connection, &job)?;
        Ok(Ok(job))
    }

    pub(super) fn cancel_job(&mut self, (id, at): &(ReplayId, Timestamp)) -> rusqlite::Result<Option<Job>> {
        self.connection
            .prepare_cached(
                "UPDATE jobs SET state = 'cancelled', state_since = ? WHERE id = ? AND state = 'running'",
            )?
            .execute(params![stored(at.as_millis()), id.as_bytes()])?;
        one(self.connection, id)
    }

    pub(super) fn is_running(&self, id: &ReplayId) -> rusqlite::Result<bool> {
        self.connection
            .prepare_cached("SELECT 1 FROM jobs WHERE id = ? AND state = 'running'")?
            .exists([id.as_bytes()])
    }

    /// Records how far a job has come.
    pub(super) fn advance(&mut self, step: &JobStep, at: Timestamp, replayed: usize) -> rusqlite::Result<()> {
        let next = step.next.map(|next| stored(next.0));
        self.connection
            .prepare_cached(
                "UPDATE jobs SET next = coalesce(?2, beyond), replayed = replayed + ?3, passed_over = passed_over + ?4,
                 state = iif(?2 IS NULL, 'done', state), state_since = iif(?2 IS NULL, ?5, state_since)
                 WHERE id = ?1",
            )?
            .execute(params![
                step.id.as_bytes(),
                next,
                stored(replayed),
                stored(step.passed_over),
                stored(at.as_millis())
            ])?;
        Ok(())
    }

    /// Forgets jobs that ended before.
    pub(super) fn forget_jobs(&mut self, before: Timestamp) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("DELETE FROM jobs WHERE state != 'running' AND state_since < ?")?
            .execute([stored(before.as_millis())])?;
        Ok(())
    }
}
