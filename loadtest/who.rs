//! Which account comes next, of those that nobody is in now.
//!
//! A maildrop opens for one at a time, so whoever plans two visits to it at once has planned a collision and learns
//! nothing from it. An account whose last visit did not end with a QUIT that was answered rests for [`COOLING`]: the
//! server may still be finding out.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand_distr::{Distribution, Zipf};
use rand_pcg::Pcg64;

use crate::accounts::Accounts;
use crate::work::Account;

/// How long an account rests after a visit that ended badly.
pub const COOLING: Duration = Duration::from_secs(3);
/// Draws before the next free one in order is taken.
const DRAWS: usize = 64;

/// In which order accounts come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Order {
    /// One after the other, and round again.
    Turns,
    /// Any.
    Uniform,
    /// So large a part (0 to 1) by Zipf's law with exponent 1, a few very often, and the others any.
    Skewed(f64),
}

/// Accounts, and who of them is in use.
pub struct Who {
    accounts: Arc<Accounts>,
    order: Order,
    random: Pcg64,
    zipf: Zipf<f64>,
    /// Of Zipf's ranks: rank times this, modulo the number of accounts, so that the popular ones lie everywhere.
    spread: u64,
    turn: u64,
    in_use: HashSet<u64>,
    /// In use by nobody, and to rest until then.
    cooling: VecDeque<(Instant, u64)>,
}

impl Who {
    pub fn new(accounts: Arc<Accounts>, order: Order, random: Pcg64) -> Who {
        let count = accounts.count();
        let zipf = Zipf::new(count as f64, 1.0).expect("there is an account, and one is a good exponent");
        Who {
            spread: coprime(count),
            accounts,
            order,
            random,
            zipf,
            turn: 0,
            in_use: HashSet::new(),
            cooling: VecDeque::new(),
        }
    }

    /// One that nobody is in, and that is now somebody's. None: all are.
    pub fn take(&mut self, now: Instant) -> Option<Account> {
        while self.cooling.front().is_some_and(|(until, _)| *until <= now) {
            self.cool_down();
        }
        let draws = if self.order == Order::Turns { 0 } else { DRAWS };
        for _ in 0..draws {
            let number = self.draw();
            if self.in_use.insert(number) {
                return Some(self.accounts.account(number));
            }
        }
        if self.in_use.len() as u64 >= self.accounts.count() {
            self.cool_down()?;
        }
        if draws > 0 {
            self.turn = self.random.random_range(0..self.accounts.count());
        }
        loop {
            let number = self.turn % self.accounts.count();
            self.turn = number + 1;
            if self.in_use.insert(number) {
                return Some(self.accounts.account(number));
            }
        }
    }

    /// A visit is over. `clean`: the server has let go of the maildrop.
    pub fn give_back(&mut self, number: u64, now: Instant, clean: bool) {
        if clean {
            self.in_use.remove(&number);
        } else {
            self.cooling.push_back((now + COOLING, number));
        }
    }

    /// Any account, in use or not: to write to.
    pub fn anybody(&mut self) -> u64 {
        match self.order {
            Order::Turns => self.random.random_range(0..self.accounts.count()),
            _ => self.draw(),
        }
    }

    /// The addresses of so many different ones, or of all where there are fewer: to write to.
    pub fn several(&mut self, count: usize) -> Vec<String> {
        let mut chosen = HashSet::new();
        let count = count.min(usize::try_from(self.accounts.count()).unwrap_or(usize::MAX));
        for _ in 0..DRAWS.max(2 * count) {
            if chosen.len() == count {
                break;
            }
            let number = self.anybody();
            chosen.insert(number);
        }
        // So large a part of them is wanted that chance does not find the rest.
        let from = self.anybody();
        let mut next = (from..).map(|number| number % self.accounts.count());
        while chosen.len() < count {
            chosen.extend(next.next());
        }
        let mut chosen: Vec<u64> = chosen.into_iter().collect();
        // A set has no order that a seed repeats.
        chosen.sort_unstable();
        chosen.into_iter().map(|number| self.accounts.address(number)).collect()
    }

    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    fn cool_down(&mut self) -> Option<()> {
        let (_, number) = self.cooling.pop_front()?;
        self.in_use.remove(&number);
        Some(())
    }

    fn draw(&mut self) -> u64 {
        let count = self.accounts.count();
        match self.order {
            Order::Skewed(part) if self.random.random::<f64>() < part => {
                let rank = (self.zipf.sample(&mut self.random) as u64).saturating_sub(1);
                (u128::from(rank) * u128::from(self.spread) % u128::from(count)) as u64
            }
            _ => self.random.random_range(0..count),
        }
    }
}

/// A number near the golden part of `count` that has no factor in common with it.
fn coprime(count: u64) -> u64 {
    let common = |mut a: u64, mut b: u64| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let golden = (count as f64 * 0.618_033_988_75) as u64;
    (golden.max(1)..).find(|&number| common(number, count) == 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn who(count: u64, order: Order) -> Who {
        let accounts = Accounts::rule(count, 0, "u%d", "p", "d").unwrap();
        Who::new(Arc::new(accounts), order, Pcg64::seed_from_u64(1))
    }

    #[test]
    fn nobody_is_drawn_twice_at_a_time_and_everybody_is_drawn() {
        for order in [Order::Turns, Order::Uniform, Order::Skewed(0.5), Order::Skewed(1.0)] {
            let (mut who, now) = (who(50, order), Instant::now());
            let all: HashSet<u64> = (0..50).map(|_| who.take(now).unwrap().number).collect();
            assert_eq!((all.len(), who.take(now)), (50, None), "{order:?}");
            who.give_back(7, now, true);
            assert_eq!(who.take(now).unwrap().number, 7);
        }
    }

    #[test]
    fn an_account_that_was_left_badly_rests_while_there_are_others() {
        let (mut who, now) = (who(2, Order::Turns), Instant::now());
        assert_eq!(who.take(now).unwrap().number, 0);
        who.give_back(0, now, false);
        assert_eq!(who.take(now).unwrap().number, 1);
        who.give_back(1, now, true);
        assert_eq!(who.take(now).unwrap().number, 1);
        assert_eq!(who.take(now).unwrap().number, 0, "there is no other");
        who.give_back(1, now, false);
        who.give_back(0, now, true);
        who.take(now).unwrap();
        assert_eq!(who.take(now + COOLING).unwrap().number, 1);
    }

    #[test]
    fn recipients_are_different_ones_and_the_same_seed_draws_the_same() {
        for order in [Order::Uniform, Order::Skewed(1.0)] {
            let (mut one, mut other) = (who(40, order), who(40, order));
            for count in [1, 3, 39, 40, 90] {
                let to = one.several(count);
                let different: HashSet<&String> = to.iter().collect();
                assert_eq!((different.len(), &to), (count.min(40), &other.several(count)));
            }
        }
    }

    #[test]
    fn a_skewed_order_has_favourites_and_leaves_nobody_out() {
        let mut who = who(1000, Order::Skewed(0.5));
        let mut visits = vec![0_u32; 1000];
        (0..100_000).for_each(|_| visits[who.anybody() as usize] += 1);
        let most = *visits.iter().max().unwrap();
        assert!(most > 5_000, "the favourite has {most} visits of 100000");
        assert!(visits.iter().all(|&visits| visits > 0));
    }
}
