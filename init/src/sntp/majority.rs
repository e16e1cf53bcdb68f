//! Turns what several servers say of the clock into the time of most of them, and names those that say something else.

/// What one server says. Nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    /// What is to be added to the clock.
    pub offset: i128,
    /// How far that may be wrong.
    pub distance: i128,
    /// Whether it was found wrong before, and has not agreed with the others since.
    pub suspect: bool,
}

/// What comes of it. Numbers are places in the list of votes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// More than half of them can be right at once.
    Agreed {
        /// The one of them that is followed: the nearest.
        best: usize,
        /// All of them.
        agree: Vec<usize>,
        /// Those that contradict every one of them.
        wrong: Vec<usize>,
    },
    /// No time is that of most of them.
    Split,
}

impl Vote {
    fn holds(&self, offset: i128) -> bool {
        (self.offset - offset).abs() <= self.distance
    }

    fn overlaps(&self, other: &Vote) -> bool {
        (self.offset - other.offset).abs() <= self.distance + other.distance
    }
}

/// Each vote is an interval in which the true offset lies; where most of them have a point in common, these are believed (Marzullo's rule, as in RFC
/// 5905, 11.2.1). One that was wrong before is believed again only together with another that was not: a liar gets nothing by outliving the others.
#[must_use]
pub fn decide(votes: &[Vote]) -> Decision {
    let believed = |point: i128| -> Vec<usize> {
        votes.iter().enumerate().filter(|(_, vote)| vote.holds(point)).map(|(index, _)| index).collect()
    };
    // Most of them overlap at the beginning of one of them, if anywhere.
    let groups = votes.iter().map(|vote| believed(vote.offset - vote.distance));
    let sound = groups.filter(|group| {
        group.len() * 2 > votes.len() && group.iter().filter_map(|index| votes.get(*index)).any(|vote| !vote.suspect)
    });
    let distance = |index: &usize| votes.get(*index).map_or(i128::MAX, |vote| vote.distance);
    let nearest = |group: &[usize]| group.iter().copied().min_by_key(distance);
    let chosen = sound.max_by_key(|group| {
        let nearest = nearest(group).map_or(i128::MAX, |index| distance(&index));
        (group.len(), std::cmp::Reverse(nearest))
    });
    let Some(agree) = chosen else { return Decision::Split };
    let Some(best) = nearest(&agree) else { return Decision::Split };
    let contradicts =
        |vote: &Vote| !agree.iter().filter_map(|index| votes.get(*index)).any(|other| vote.overlaps(other));
    let wrong = votes.iter().enumerate().filter(|(_, vote)| contradicts(vote)).map(|(index, _)| index).collect();
    Decision::Agreed { best, agree, wrong }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::{Decision, Vote, decide};

    fn vote((offset, distance, suspect): (i128, i128, bool)) -> Vote {
        Vote { offset, distance, suspect }
    }

    #[track_caller]
    fn check(votes: &[(i128, i128, bool)], want: Option<(usize, &[usize], &[usize])>) {
        let votes: Vec<Vote> = votes.iter().copied().map(vote).collect();
        let want = want.map_or(Decision::Split, |(best, agree, wrong)| Decision::Agreed {
            best,
            agree: agree.to_vec(),
            wrong: wrong.to_vec(),
        });
        assert_eq!(decide(&votes), want, "{votes:?}");
    }

    #[test]
    fn most_of_them_are_believed() {
        let good = |offset| (offset, 10, false);
        check(&[], None);
        check(&[good(5)], Some((0, &[0], &[])));
        check(&[good(0), good(20)], Some((0, &[0, 1], &[])));
        check(&[good(0), good(21)], None);
        check(&[good(0), good(1000), good(5)], Some((0, &[0, 2], &[1])));
        check(&[good(0), (4, 2, false), good(-1000), good(1000)], None);
        check(&[good(0), (4, 2, false), (9, 1, false), good(1000)], None);
        check(&[(0, 10, false), (4, 2, false), (5, 1, false), good(1000)], Some((2, &[0, 1, 2], &[3])));
        // A liar whose interval is as wide as the world agrees with everybody, and is not followed.
        check(&[good(0), (500, 10_000, false), good(3)], Some((0, &[0, 1, 2], &[])));
    }

    #[test]
    fn a_chain_is_cut_where_it_is_nearest_and_nobody_is_called_wrong() {
        check(&[(0, 10, false), (15, 10, false), (30, 5, false)], Some((2, &[1, 2], &[])));
    }

    #[test]
    fn who_was_wrong_needs_a_witness() {
        check(&[(0, 10, true)], None);
        check(&[(0, 10, true), (1, 10, true)], None);
        check(&[(0, 5, true), (1, 10, false)], Some((0, &[0, 1], &[])));
        check(&[(0, 5, true), (1, 5, true), (1000, 5, false)], None);
    }

    proptest! {
        #[test]
        fn a_minority_of_liars_moves_nobody(
            honest in prop::collection::vec((-50_i128..50, 60_i128..90), 3..6),
            liars in prop::collection::vec((any::<i32>(), 1_i128..1000), 0..3),
        ) {
            // The truth is 0, and in every honest interval.
            let votes: Vec<Vote> = honest.iter().map(|(offset, distance)| vote((*offset, *distance, false)))
                .chain(liars.iter().map(|(offset, distance)| vote(((*offset).into(), *distance, false)))).collect();
            let Decision::Agreed { best, agree, wrong } = decide(&votes) else { panic!("{votes:?}") };
            assert!(agree.len() * 2 > votes.len() && agree.contains(&best));
            // What is followed shares a point with an honest one.
            assert!(votes[..honest.len()].iter().any(|one| one.overlaps(&votes[best])), "{votes:?}");
            assert!(wrong.iter().all(|index| *index >= honest.len()), "{votes:?} {wrong:?}");
        }
    }
}
