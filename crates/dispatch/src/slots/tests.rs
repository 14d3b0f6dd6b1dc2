use proptest::prelude::*;

use super::*;

/// Asks, and waits if there is none.
fn poll(seat: &Seat) -> Option<Slot> {
    match seat.poll_take(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(slot) => Some(slot),
        Poll::Pending => None,
    }
}

fn take(seat: &Seat, number: usize) -> Vec<Slot> {
    (0..number).map_while(|_| seat.try_take()).collect()
}

#[test]
fn what_is_free_decides_how_many_a_lane_may_hold() {
    let slots = Slots::new(32);
    let seats: Vec<_> = (0..12).map(|_| slots.seat()).collect();
    let held: Vec<_> = seats.iter().map(|seat| take(seat, 10)).collect();
    let numbers: Vec<_> = held.iter().map(Vec::len).collect();
    assert_eq!(numbers, [10, 6, 4, 4, 1, 1, 1, 1, 1, 1, 1, 1], "half of them, a quarter, and one each");
    assert!(slots.seat().try_take().is_none());
    drop(held);
    assert_eq!(take(&seats[0], 100).len(), 16, "one alone");
}

#[test]
fn a_slot_goes_to_who_holds_the_fewest_and_then_to_who_waits_longest() {
    let slots = Slots::new(3);
    let seats: Vec<_> = (0..5).map(|_| slots.seat()).collect();
    let mut held: Vec<_> = seats.iter().map(|seat| take(seat, 2)).collect();
    assert_eq!(held.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 0, 0, 0]);
    for seat in [0, 1, 4, 3, 2] {
        assert!(poll(&seats[seat]).is_none());
    }
    held[0].pop();
    assert_eq!([0, 1, 2, 3].map(|seat| seats[seat].try_take().is_some()), [false; 4]);
    held[4].extend(poll(&seats[4]));
    held[1].pop();
    assert!(poll(&seats[3]).is_none(), "the second lane holds none any more, and waits longer");
    held[1].extend(poll(&seats[1]));
    held[4].pop();
    held[3].extend(poll(&seats[3]));
    assert_eq!(held.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 0, 1, 0]);
}

#[test]
fn who_waits_no_more_gives_back_what_was_put_down_for_it() {
    let slots = Slots::new(1);
    let (one, two, three) = (slots.seat(), slots.seat(), slots.seat());
    let held = one.try_take().unwrap();
    assert!(poll(&two).is_none() && poll(&three).is_none());
    drop(held);
    two.give_up();
    let held = three.try_take().unwrap();
    assert!(poll(&two).is_none());
    drop((held, two));
    assert!(one.try_take().is_some());
}

#[derive(Debug, Default)]
struct Lane {
    seat: Option<Seat>,
    held: Vec<Slot>,
    waits: bool,
}

proptest! {
    #[test]
    fn slots_are_neither_lost_nor_made_and_nobody_waits_who_may_have_one(
        number in 1_usize..40,
        moves in prop::collection::vec((0_usize..8, 0_u8..6, 0_usize..8), 1..300)
    ) {
        let slots = Slots::new(number);
        let mut lanes: Vec<_> = (0..8).map(|_| Lane::default()).collect();
        for (index, kind, which) in moves {
            let lane = &mut lanes[index];
            let seat = lane.seat.get_or_insert_with(|| slots.seat());
            match kind {
                0 | 1 => match poll(seat) {
                    Some(slot) => { lane.held.push(slot); lane.waits = false; }
                    None => lane.waits = true,
                },
                2 => if let Some(slot) = seat.try_take() { lane.held.push(slot); lane.waits = false; },
                3 => if !lane.held.is_empty() { drop(lane.held.swap_remove(which % lane.held.len())); },
                4 => { seat.give_up(); lane.waits = false; }
                _ => { lane.seat = None; lane.waits = false; }
            }
            let state = slots.state();
            let held: usize = lanes.iter().map(|lane| lane.held.len()).sum();
            let granted = state.seats.iter().filter(|place| place.granted).count();
            prop_assert_eq!(state.free + held + granted, number);
            prop_assert!(state.waiting.iter().all(|(held, ..)| !state.may_have(*held)));
            prop_assert_eq!(state.waiting.len() + granted, lanes.iter().filter(|lane| lane.waits).count());
            for (held, ticket, seat) in &state.waiting {
                prop_assert_eq!((state.seats[*seat].held, state.seats[*seat].ticket), (*held, Some(*ticket)));
            }
        }
        drop(lanes);
        let state = slots.state();
        prop_assert_eq!((state.free, state.vacant.len()), (number, state.seats.len()));
    }
}
