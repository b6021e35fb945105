//! Accounts as they are stored: free, reserved and committed, which are their total at each commit.

use crate::{
    error::Trouble,
    sql::{Sql, count, get, number, one, run},
};
use domain::{Amount, Micros, budget::Account};
use rusqlite::{Row, params_from_iter};

/// A new account with all of `total` free.
pub(crate) fn create(sql: &Sql, total: Amount, parent: Option<i64>) -> Result<i64, Trouble> {
    run(
        sql,
        "INSERT INTO accounts VALUES (NULL, ?21, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, \
         ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, 0)",
        params_from_iter(
            account_columns(Account::new(total))
                .map(Some)
                .chain([parent]),
        ),
    )?;
    Ok(sql.last_insert_rowid())
}

/// A new account whose total is reserved in its parent.
pub(crate) fn carve(sql: &Sql, parent: i64, total: Amount) -> Result<i64, Trouble> {
    let above = load(sql, parent)?.reserve(total)?;
    store(sql, parent, above)?;
    create(sql, total, Some(parent))
}

/// Closes an account without a parent. What is still reserved counts as spent; mostly nothing is,
/// and then nothing else changes.
pub(crate) fn close(sql: &Sql, account: i64) -> Result<(), Trouble> {
    let closed = run(
        sql,
        "UPDATE accounts SET closed = 1 WHERE n = ?1 AND reserved_tokens = 0 \
         AND reserved_money = 0 AND reserved_wall = 0 AND reserved_iterations = 0",
        [account],
    )?;
    match closed {
        0 => store(sql, account, load(sql, account)?.close()),
        _ => Ok(()),
    }
}

/// Closes an account: its parent commits what it committed and frees the rest.
pub(crate) fn close_child(sql: &Sql, account: i64) -> Result<(), Trouble> {
    let parent: Option<i64> = one(
        sql,
        "SELECT parent FROM accounts WHERE n = ?1",
        [account],
        |row| get(row, 0),
    )?
    .flatten();
    let closed = load(sql, account)?.close();
    store(sql, account, closed)?;
    let Some(parent) = parent else { return Ok(()) };
    let above = load(sql, parent)?.settle(closed.total, closed.committed)?;
    store(sql, parent, above)
}

/// Whether an account above this one is closed.
pub(crate) fn is_closed_above(sql: &Sql, account: i64) -> Result<bool, Trouble> {
    let closed = one(
        sql,
        "WITH RECURSIVE above(n) AS (SELECT parent FROM accounts WHERE n = ?1 \
         UNION SELECT a.parent FROM accounts a JOIN above USING (n) WHERE a.parent IS NOT NULL) \
         SELECT 1 FROM above JOIN accounts USING (n) WHERE closed = 1 LIMIT 1",
        [account],
        |_| Ok(()),
    )?;
    Ok(closed.is_some())
}

/// An account.
pub(crate) fn load(sql: &Sql, account: i64) -> Result<Account, Trouble> {
    one(
        sql,
        "SELECT * FROM accounts WHERE n = ?1",
        [account],
        |row| read_account(row, 2),
    )?
    .ok_or_else(|| Trouble::Row(format!("the account {account} is missing")))
}

/// An account from its twenty-one columns, beginning with this one.
pub(crate) fn read_account(row: &Row<'_>, first: usize) -> Result<Account, Trouble> {
    Ok(Account {
        total: amount(row, first)?,
        free: amount(row, first + 4)?,
        reserved: amount(row, first + 8)?,
        committed: amount(row, first + 12)?,
        overdraft: amount(row, first + 16)?,
        closed: get(row, first + 20)?,
    })
}

/// Stores an account.
pub(crate) fn store(sql: &Sql, n: i64, account: Account) -> Result<(), Trouble> {
    run(
        sql,
        "UPDATE accounts SET total_tokens = ?1, total_money = ?2, total_wall = ?3, \
         total_iterations = ?4, free_tokens = ?5, free_money = ?6, free_wall = ?7, \
         free_iterations = ?8, reserved_tokens = ?9, reserved_money = ?10, reserved_wall = ?11, \
         reserved_iterations = ?12, committed_tokens = ?13, committed_money = ?14, \
         committed_wall = ?15, committed_iterations = ?16, overdraft_tokens = ?17, \
         overdraft_money = ?18, overdraft_wall = ?19, overdraft_iterations = ?20, closed = ?21 \
         WHERE n = ?22",
        params_from_iter(account_columns(account).chain([i64::from(account.closed), n])),
    )?;
    Ok(())
}

fn account_columns(account: Account) -> impl Iterator<Item = i64> {
    [
        account.total,
        account.free,
        account.reserved,
        account.committed,
        account.overdraft,
    ]
    .into_iter()
    .flat_map(columns)
}

pub(crate) fn columns(amount: Amount) -> [i64; 4] {
    [
        number(amount.tokens),
        number(amount.money.0),
        number(amount.wall_ms),
        number(amount.iterations),
    ]
}

/// An amount from its four columns, beginning with this one.
pub(crate) fn amount(row: &Row<'_>, first: usize) -> Result<Amount, Trouble> {
    Ok(Amount {
        tokens: count(row, first)?,
        money: Micros(count(row, first + 1)?),
        wall_ms: count(row, first + 2)?,
        iterations: count(row, first + 3)?,
    })
}
