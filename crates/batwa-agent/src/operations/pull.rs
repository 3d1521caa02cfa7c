//! Pulling an image: accepted, run and settled as what is done to VMs, but with no VM.

use std::sync::Arc;

use batwa_api::{
    Timestamp,
    id::OperationId,
    image::{Image, ImageName},
    operation::{OperationKind, OperationRequest, OperationState, PullOptions, Subject},
    problem::{Problem, ProblemCode},
};
use tokio::time::timeout;
use tracing::info;

use super::{
    Operations, Started, error_of, nothing_to_do,
    preflight::CHECK_DEADLINE,
    queue::Ask,
    record::Record,
    run::{End, cannot_journal},
    settle::{Decision, Evidence, settle},
};
use crate::driver::{Driver, DriverError, Progress};

impl Operations {
    /// Accepts a pull, or answers with the one that has this id already.
    pub(super) async fn start_pull(
        self: &Arc<Self>,
        requested_by: Option<String>,
        id: OperationId,
        image: ImageName,
        request: OperationRequest,
    ) -> Result<Started, Problem> {
        let OperationRequest::PullImage(options) = request else {
            return Err(Problem::new(
                ProblemCode::InvalidField,
                "only pulling is done with an image",
            ));
        };
        let (driver, known) = self.preflight_pull(&image, options).await?;
        // Under its own name, so that two pulls of one image stand in one row whatever they call it.
        let image = ImageName::parse(&known.name).unwrap_or(image);
        let subject = Subject::Image(image);
        let record = {
            let mut book = self.book();
            if let Some(record) = book.records.get(&id) {
                return Ok(Started::Known(record.operation()));
            }
            let limit = self.limits.queue_per_vm;
            if book
                .queues
                .get(&subject)
                .is_some_and(|queue| !queue.has_room(limit))
            {
                return Err(Problem::new(
                    ProblemCode::Conflict,
                    format!("{limit} pulls of {subject} are under way already: wait for one"),
                ));
            }
            let request = OperationRequest::PullImage(PullOptions {
                driver: Some(driver.kind()),
            });
            let entry = self.entry(id, &subject, request, driver.kind(), requested_by);
            let record = Arc::new(Record::new(entry));
            book.records.insert(id, Arc::clone(&record));
            if known.cached {
                nothing_to_do(&record);
            } else {
                let ask = Ask::Do(OperationKind::PullImage);
                book.queues.entry(subject).or_default().push(id, ask);
            }
            record
        };
        self.accept(&record, (!known.cached).then(Vec::new)).await
    }

    /// Refuses a pull that cannot work. The driver that is to do it, and what it knows of the image.
    async fn preflight_pull(
        &self,
        image: &ImageName,
        options: PullOptions,
    ) -> Result<(Arc<dyn Driver>, Image), Problem> {
        let to_problem = |error: &DriverError| error_of(error).to_problem();
        let drivers = match options.driver {
            Some(kind) => vec![
                self.inventory
                    .driver(kind)
                    .map_err(|error| to_problem(&error))?,
            ],
            None => self.inventory.drivers(),
        };
        let mut refusal = None;
        for driver in drivers {
            match check(&driver, image).await {
                Ok(known) => return Ok((driver, known)),
                // That of the first one: it is the one for new VMs.
                Err(error) => {
                    refusal.get_or_insert(error);
                }
            }
        }
        let error =
            refusal.unwrap_or_else(|| DriverError::Missing("no driver is in use".to_owned()));
        Err(to_problem(&error))
    }

    /// Runs a pull to its end and shows it. Returns false when the agent stops instead.
    pub(super) async fn run_pull(&self, image: &ImageName, record: &Arc<Record>) -> bool {
        let end = self.pull_to_end(image, record).await;
        if matches!(end, End::Interrupted) {
            return false;
        }
        self.finish(record, end).await;
        true
    }

    async fn pull_to_end(&self, image: &ImageName, record: &Arc<Record>) -> End {
        let driver = match self.inventory.driver(record.driver) {
            Ok(driver) => driver,
            Err(error) => return End::Failed(error_of(&error)),
        };
        let turns = self.turns(record.driver, OperationKind::PullImage);
        let _turn = tokio::select! {
            () = record.cancel.cancelled() => return End::Cancelled,
            () = self.stop.cancelled() => return End::Interrupted,
            turn = turns.take(record.operation().requested_by) => turn,
        };
        record.change(|operation| {
            operation.state = OperationState::Running;
            operation.started_at.get_or_insert_with(Timestamp::now);
        });
        if let Err(error) = record.persist(&self.journal).await {
            return End::Failed(cannot_journal(&error));
        }
        self.picture.set_operation(record.operation());
        info!(operation.id = %record.operation().id, "pull image `{image}`");
        let deadline = self.limits.deadlines.of(OperationKind::PullImage);
        let progress = record.progress(&self.picture);
        let work = async {
            let work = pull(image, record, &driver, &progress);
            timeout(deadline, work).await.unwrap_or_else(|_| {
                Err(DriverError::Timeout(format!(
                    "cannot pull image `{image}`: not done after {} minutes; the next pull goes on from there",
                    deadline.as_secs() / 60
                )))
            })
        };
        tokio::select! {
            biased;
            // What has come stays for the next pull; the driver forgets it in time.
            () = record.cancel.cancelled() => End::Cancelled,
            () = self.stop.cancelled() => End::Interrupted,
            result = work => match result {
                Ok(()) => End::Succeeded { late: false },
                Err(error) => End::Failed(error_of(&error)),
            },
        }
    }
}

/// Pulls, after what is seen where a restart of the agent cut it off.
async fn pull(
    image: &ImageName,
    record: &Record,
    driver: &Arc<dyn Driver>,
    progress: &Progress,
) -> Result<(), DriverError> {
    let keeper = driver.image_keeper().ok_or_else(|| no_keeper(driver))?;
    let decision = if record.interrupted {
        let is_here = keeper.check_pull(image).await?.cached;
        let seen = Evidence::of_image(is_here);
        let decision = settle(
            OperationKind::PullImage,
            OperationState::Running,
            record.pause(),
            seen,
        );
        let found = if is_here { "here" } else { "not here" };
        record.note(&format!(
            "the agent was restarted; the image is {found}: {decision:?}"
        ));
        decision
    } else {
        Decision::Run(OperationKind::PullImage)
    };
    match decision {
        Decision::Keep | Decision::Succeed => Ok(()),
        Decision::Run(_) | Decision::AwaitRunning => keeper.pull(image, progress).await,
        Decision::Fail(reason) => Err(DriverError::failed(reason)),
    }
}

async fn check(driver: &Arc<dyn Driver>, image: &ImageName) -> Result<Image, DriverError> {
    let keeper = driver.image_keeper().ok_or_else(|| no_keeper(driver))?;
    timeout(CHECK_DEADLINE, keeper.check_pull(image))
        .await
        .unwrap_or_else(|_| {
            Err(DriverError::Stuck(format!(
                "driver `{}` did not look up the image within {} s",
                driver.kind(),
                CHECK_DEADLINE.as_secs()
            )))
        })
}

fn no_keeper(driver: &Arc<dyn Driver>) -> DriverError {
    DriverError::Unsupported(format!(
        "driver `{}` keeps its images by itself: it fetches one when a VM is made from it",
        driver.kind()
    ))
}
