//! Accounts: opened, renewed and closed by people.

use std::sync::Arc;

use hostler_model::{
    Account, AccountId, AccountStatus, Code, EventKind, ReadMarks, Refusal, Savings, Subject, Token,
};

use super::Draft;
use crate::{AccountVerb, Change, Expect, Notices, Reply};

/// Longest name or address of an account.
const LONGEST_NAME: usize = 255;

impl<'a> Draft<'a> {
    pub(super) fn account_verb(&mut self, verb: &AccountVerb) -> Result<Reply, Refusal> {
        match verb {
            AccountVerb::Open { name, email, token } => {
                self.open_account(name, email.as_deref(), token)
            }
            AccountVerb::RenewToken { account, token } => self.renew_token(*account, token),
            AccountVerb::SetStatus { account, status } => self.set_status(*account, *status),
            AccountVerb::Close { account } => self.close_account(*account),
            AccountVerb::MarkRead { account, notices } => self.mark_read(*account, *notices),
        }
    }

    fn open_account(
        &mut self,
        name: &str,
        email: Option<&str>,
        token: &Token,
    ) -> Result<Reply, Refusal> {
        check_word("name", name)?;
        email.map_or(Ok(()), |email| check_word("email", email))?;
        let is_taken = |account: &Arc<Account>| same(&account.name, name);
        if self.state.accounts().any(is_taken) {
            let sentence = format!("another account is called `{name}`");
            return Err(Refusal::new(
                Code::AccountNameTaken,
                sentence,
                "choose another name",
            ));
        }
        let id = AccountId::mint(self.now, self.draws.next());
        self.put_account(Account {
            id,
            name: name.to_owned(),
            email: email.map(str::to_owned),
            token: token.clone(),
            status: AccountStatus::Active,
            created_at: self.now,
            savings: Savings::default(),
            read: ReadMarks::default(),
        });
        let message = format!("account {name} was opened");
        self.event(EventKind::AccountOpened, Subject::default(), message);
        Ok(Reply::Account { id })
    }

    fn renew_token(&mut self, id: AccountId, token: &Token) -> Result<Reply, Refusal> {
        let old = self.account(id)?;
        let message = format!("account {} has a new token", old.name);
        self.put_account(Account {
            token: token.clone(),
            ..Account::clone(old)
        });
        self.event(EventKind::AccountChanged, Subject::default(), message);
        Ok(Reply::Account { id })
    }

    fn set_status(&mut self, id: AccountId, status: AccountStatus) -> Result<Reply, Refusal> {
        let old = self.account(id)?;
        if old.status == status {
            return Ok(Reply::Account { id });
        }
        let what = match status {
            AccountStatus::Active => "active again",
            AccountStatus::Suspended => "suspended: its agents are not listened to",
        };
        let message = format!("account {} is {what}", old.name);
        self.put_account(Account {
            status,
            ..Account::clone(old)
        });
        self.event(EventKind::AccountChanged, Subject::default(), message);
        Ok(Reply::Account { id })
    }

    fn close_account(&mut self, id: AccountId) -> Result<Reply, Refusal> {
        let name = &self.account(id)?.name;
        let nodes: Vec<_> = self
            .state
            .rentals_of(id)
            .map(|rental| rental.node)
            .collect();
        for node in nodes {
            self.remove_node(node, true, Expect::Any)?;
        }
        self.changes.push(Change::RemoveAccount(id));
        let message = format!("account {name} was closed");
        self.event(EventKind::AccountClosed, Subject::default(), message);
        Ok(Reply::Account { id })
    }

    fn mark_read(&mut self, id: AccountId, notices: Notices) -> Result<Reply, Refusal> {
        let old = self.account(id)?;
        let mut read = old.read.clone();
        match notices {
            Notices::One(number) => read.mark(number),
            Notices::Through(number) => read.mark_through(number),
        }
        if read != old.read {
            self.put_account(Account {
                read,
                ..Account::clone(old)
            });
        }
        Ok(Reply::Account { id })
    }

    pub(super) fn account(&self, id: AccountId) -> Result<&'a Arc<Account>, Refusal> {
        self.state.account(id).ok_or_else(|| {
            let sentence = format!("no account has the id {id}");
            Refusal::new(
                Code::AccountNotFound,
                sentence,
                "list the accounts with `GET /api/admin/clients`",
            )
        })
    }

    pub(super) fn put_account(&mut self, account: Account) {
        self.changes.push(Change::PutAccount(Arc::new(account)));
    }
}

fn same(one: &str, other: &str) -> bool {
    one.trim().to_lowercase() == other.trim().to_lowercase()
}

fn check_word(what: &str, text: &str) -> Result<(), Refusal> {
    let is_plain = !text.chars().any(char::is_control);
    if (1..=LONGEST_NAME).contains(&text.trim().len()) && text.len() <= LONGEST_NAME && is_plain {
        return Ok(());
    }
    let sentence = format!("the {what} of an account has 1 to {LONGEST_NAME} plain characters");
    Err(Refusal::new(Code::NameInvalid, sentence, "choose another"))
}
