//! What was foreseen of rollouts, and what came of them.

use sealift_protocol::api::{FactPoint, RolloutCourse, RolloutForecast};
use sealift_protocol::id::RolloutId;

use super::{Change, StoreError, TenantStore, from_json, signed, to_json};

/// Points that are kept of a rollout; then every second one is dropped.
const POINTS_MAX: usize = 400;

impl TenantStore {
    /// What was foreseen of a rollout, and what came of it.
    pub(crate) async fn course(&self, id: RolloutId) -> Result<RolloutCourse, StoreError> {
        let row: Option<(String, String)> =
            sqlx::query_as("SELECT body, course FROM forecasts WHERE tenant = $1 AND rollout = $2")
                .bind(self.id().to_owned())
                .bind(signed("rollout", id.0)?)
                .fetch_optional(self.readers())
                .await?;
        let Some((body, course)) = row else { return Ok(RolloutCourse::default()) };
        let forecast = (!body.is_empty()).then(|| from_json("forecast", &body)).transpose()?;
        Ok(RolloutCourse { forecast, begun_at: None, fact: from_json("course", &course)? })
    }
}

impl Change {
    /// Keeps what is foreseen of a rollout that begins.
    pub(crate) async fn save_forecast(
        &mut self,
        id: RolloutId,
        forecast: &RolloutForecast,
    ) -> Result<(), StoreError> {
        let (number, body) = (signed("rollout", id.0)?, to_json("forecast", forecast)?);
        self.run(
            "INSERT INTO forecasts (tenant, rollout, body) VALUES ($1, $2, $3)
             ON CONFLICT (tenant, rollout) DO UPDATE SET body = excluded.body, course = '[]'",
            |it| it.bind(number).bind(body),
        )
        .await?;
        Ok(())
    }

    /// Adds to what came of a rollout.
    pub(crate) async fn add_fact(
        &mut self,
        id: RolloutId,
        point: FactPoint,
    ) -> Result<(), StoreError> {
        let number = signed("rollout", id.0)?;
        let kept: Option<String> =
            sqlx::query_scalar("SELECT course FROM forecasts WHERE tenant = $1 AND rollout = $2")
                .bind(self.tenant().to_string())
                .bind(number)
                .fetch_optional(self.connection())
                .await?;
        let kept = kept.map(|kept| from_json::<Vec<FactPoint>>("course", &kept)).transpose()?;
        let course = to_json("course", &with(kept.unwrap_or_default(), point))?;
        self.run(
            "INSERT INTO forecasts (tenant, rollout, body, course) VALUES ($1, $2, '', $3)
             ON CONFLICT (tenant, rollout) DO UPDATE SET course = excluded.course",
            |it| it.bind(number).bind(course),
        )
        .await?;
        Ok(())
    }
}

fn with(mut course: Vec<FactPoint>, point: FactPoint) -> Vec<FactPoint> {
    if course.len() >= POINTS_MAX {
        course = course.into_iter().step_by(2).collect();
    }
    course.push(point);
    course
}

#[cfg(test)]
mod tests {
    use sealift_protocol::id::UnixMillis;

    use super::*;

    #[test]
    fn a_long_course_is_thinned_and_keeps_both_ends() {
        let point = |at| FactPoint { at: UnixMillis(at), done: 0, refused: 0 };

        let course = (0..2_000).map(point).fold(Vec::new(), with);

        assert!(course.len() <= POINTS_MAX);
        assert_eq!((course[0].at.0, course[course.len() - 1].at.0), (0, 1_999));
    }
}
