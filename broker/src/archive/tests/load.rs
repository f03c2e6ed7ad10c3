//! A thousand executions at once: what they take of memory, and what they ask of the store.

use super::*;

const EXECUTIONS: usize = 1000;
const LINES: usize = 100;
const WIDTH: usize = 100;
/// In bytes. What one execution says is less than a segment; what all of them say is far more than the memory.
const SEGMENT: usize = 64 << 10;
const MEMORY: usize = 1 << 20;
/// In bytes: a record of ten lines.
const EVENT: usize = 2000;

/// A backend in which many executions write, all of them at once.
struct Crowd;

fn one(number: usize) -> Address {
    Address { id: format!("e-{number}").parse().unwrap(), ..address() }
}

/// What one execution says, made while it is heard: no two lines are alike, so they do not compress to nothing.
fn feed(address: Address) -> EventStream {
    let events = async_stream::stream! {
        let hash = address.hash();
        let mut cursor = Cursor::start(hash);
        let key = stream_key("base");
        let mut mark = Mark::START;
        for ten in 0..LINES / 10 {
            // The kubelet's pace.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let before = cursor.clone();
            let lines: Vec<_> = (0..10).map(|n| {
                let noise: String = (0..WIDTH).map(|_| char::from(rand::random_range(b' '..=b'~'))).collect();
                line(i64::try_from(ten * 10 + n).unwrap(), &noise)
            }).collect();
            for line in &lines {
                mark = mark.after(line.nanos);
                cursor.set_stream(&key, mark.position(&line.content));
            }
            let chunk = LogChunk { instance: instance("base"), lines, before };
            yield Ok(Event { cursor: cursor.clone(), kind: EventKind::LogChunk(chunk) });
        }
        let last = Execution { address, ..execution(State::Succeeded) };
        yield Ok(Event { cursor, kind: EventKind::End(Box::new(last)) });
    };
    events.boxed()
}

#[async_trait]
impl Backend for Crowd {
    async fn submit(&self, _: &Tenant, _: Submit) -> Result<Submitted, Error> {
        Err(Fake::missing())
    }

    async fn get(&self, _: &Tenant, id: &ExecutionId, _: View) -> Result<Execution, Error> {
        let address = Address { id: id.clone(), ..address() };
        Ok(Execution { address, ..execution(State::Succeeded) })
    }

    async fn list(&self, _: &Tenant, _: &Filter) -> Result<Vec<Execution>, Error> {
        Ok(Vec::new())
    }

    async fn watch(&self, _: &Tenant, id: &ExecutionId, _: &[u8], _: WatchOptions) -> Result<EventStream, Error> {
        Ok(feed(Address { id: id.clone(), ..address() }))
    }

    async fn copy(
        &self,
        tenant: &Tenant,
        id: &ExecutionId,
        cursor: &[u8],
        options: WatchOptions,
    ) -> Result<EventStream, Error> {
        self.watch(tenant, id, cursor, options).await
    }

    async fn cancel(&self, _: &Tenant, _: &ExecutionId, _: Cancel) -> Result<Execution, Error> {
        Err(Fake::missing())
    }

    async fn release(&self, _: &Tenant, _: &ExecutionId, _: Option<&str>) -> Result<Execution, Error> {
        Err(Fake::missing())
    }

    fn census(&self) -> BoxStream<'static, Presence> {
        stream::iter([Presence::All((0..EXECUTIONS).map(one).collect())]).chain(stream::pending()).boxed()
    }

    fn health(&self) -> Health {
        Health::Serving
    }

    fn check(&self) -> BoxStream<'static, Check> {
        stream::empty().boxed()
    }
}

/// Archives all of them; returns the most bytes that were held meanwhile.
async fn archived(world: &World, archive: &Arc<Archive>) -> usize {
    archive.follow(Arc::new(Crowd), "prod", &world.tasks, &world.stop);
    let mut most = 0;
    let began = Instant::now();
    let executions = archive.counters.executions.clone();
    while executions.get() < EXECUTIONS as u64 {
        assert!(began.elapsed() < Duration::from_mins(30), "{} of them", executions.get());
        tokio::time::sleep(Duration::from_millis(20)).await;
        most = most.max(archive.budget.held());
    }
    most
}

/// Of one execution: nobody has it, nobody writes it; then its day and its claim; its segments, each with the index; its outcome.
const AROUND: u64 = 5;

#[tokio::test(start_paused = true)]
async fn a_thousand_executions_at_once_take_bounded_memory_and_a_known_number_of_requests() {
    let world = World::new();
    let archive = world.open(Place::Elsewhere, SEGMENT, MEMORY).await.unwrap();
    world.store.taken();
    world.store.breaks(Fault::Slow(Duration::from_millis(30)), "executions");
    let most = archived(&world, &archive).await;
    let asked = world.store.taken();
    let segments = archive.counters.segments.get();
    let total = EXECUTIONS * LINES * WIDTH;
    assert!(total > 8 * MEMORY && most > MEMORY / 2, "{most} of {total} bytes: no pressure was tried");
    assert!(most < MEMORY * 3 / 2 + EXECUTIONS * EVENT, "{most} bytes");
    assert!(world.store.most() <= 32 + 2, "{} at once", world.store.most());
    let of_executions = asked["get"] + asked["create"] + asked["put"] + asked["list"];
    let expected = EXECUTIONS as u64 * AROUND + 2 * segments;
    // The signs of life, two requests each, are nobody's.
    assert!((expected..expected + 200).contains(&of_executions), "{asked:?}, {segments} segments");
    assert_eq!((archive.counters.failures.get(), archive.budget.held()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_executions_that_find_the_store_away_wait_together() {
    let world = World::new();
    let archive = world.open(Place::Elsewhere, SEGMENT, MEMORY).await.unwrap();
    world.store.breaks(Fault::Unavailable, "");
    archive.follow(Arc::new(Crowd), "prod", &world.tasks, &world.stop);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(archive.condition().map(|condition| condition.waiting), Some(EXECUTIONS));
    world.store.taken();
    tokio::time::sleep(Duration::from_mins(10)).await;
    let asked: u64 = world.store.taken().values().sum();
    assert!(asked < 100, "{asked} requests in ten minutes");
    assert_eq!(archive.budget.held(), 0, "nothing is read that cannot be written");
    world.store.heals();
    let began = Instant::now();
    while archive.counters.executions.get() < EXECUTIONS as u64 {
        assert!(began.elapsed() < Duration::from_mins(3), "{}", archive.counters.executions.get());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(archive.condition(), None);
}
