//! What is seen on the agent, as units, told when it has changed.

use super::*;

use hostler_wire::persys::control;

use super::seen::Told;

impl Driver {
    /// Every unit of ours, as the list shows it.
    pub(super) fn observe(
        &mut self,
        wants: &BTreeMap<String, Want>,
        seen: &BTreeMap<String, WorkloadStatus>,
    ) -> Vec<ObservedUnit> {
        let wall = self.door.now();
        let mut units = Vec::new();
        for want in wants.values() {
            let superseded = want.superseded.iter();
            units.extend(superseded.map(|unit| unit_of(want, *unit, UnitState::Gone)));
            let status = seen.get(&want.id);
            let told = status.map_or(Told::Missing, |status| seen::told(status, wall));
            let is_other = status.is_some_and(|status| act::is_other(want, status));
            if let Some(state) = self.state(want, told, is_other) {
                units.push(unit_of(want, want.unit, state));
            }
            self.note(want, status);
        }
        units
    }

    /// The state of what is wanted, if there is anything to say.
    fn state(&mut self, want: &Want, told: Told, is_other: bool) -> Option<UnitState> {
        let now = self.door.control.clock().uptime();
        let wall = self.door.now();
        let memory = self.copies.get_mut(&want.id)?;
        let state = match want.goal {
            Goal::Rest => return None,
            Goal::Park | Goal::Remove if memory.is_gone => UnitState::Gone,
            Goal::Park | Goal::Remove => UnitState::Stopping,
            Goal::Run => {
                // What the agent has of another revision is no word about this one.
                let told = match (told, &memory.failure) {
                    (told, None) if is_other => Told::Pending(match told {
                        Told::Pending(detail) => detail,
                        _ => format!("revision {} takes the place of another", want.revision),
                    }),
                    (told, Some(failure)) if is_other || told == Told::Missing => {
                        Told::Failed(failure.clone())
                    }
                    (told, _) => told,
                };
                match &told {
                    Told::Running(_) => memory.tries.reset(),
                    Told::Failed(failure) => {
                        memory.tries.fail(now, &failure.code, failure.is_terminal);
                    }
                    _ => {}
                }
                let retry_at = memory.tries.wait(now).map_or(wall, |wait| wall.plus(wait));
                seen::state(want, told, memory.state.as_ref(), retry_at)
            }
        };
        let state = match (state, &memory.state) {
            // The moment of the next try is told once, not anew with each look.
            (
                UnitState::Failed { code, message, .. },
                Some(UnitState::Failed {
                    code: old,
                    message: said,
                    retry_at,
                }),
            ) if code == *old
                && message == *said
                && (*retry_at >= wall || memory.tries.is_given_up()) =>
            {
                UnitState::Failed {
                    code,
                    message,
                    retry_at: *retry_at,
                }
            }
            (state, _) => state,
        };
        memory.state = Some(state.clone());
        Some(state)
    }

    /// Tells the control plane what has changed; everything, at first and when the node has joined anew.
    pub(super) async fn tell(&mut self, node: &Node, units: Vec<ObservedUnit>) {
        let now: BTreeMap<UnitId, ObservedUnit> =
            units.into_iter().map(|unit| (unit.unit, unit)).collect();
        let is_full = node.liveness == Liveness::Joining || !self.told_in_full;
        // A node that fell silent is alive again by its beats, not because it could be dialled.
        let told = if is_full && is_heard(node) {
            let told = self
                .attachment
                .observed_full(now.values().cloned().collect())
                .await;
            self.told_in_full |= told.is_ok();
            told
        } else {
            let is_new = |unit: &&ObservedUnit| self.told.get(&unit.unit) != Some(*unit);
            let changed: Vec<ObservedUnit> = now.values().filter(is_new).cloned().collect();
            if changed.is_empty() {
                return;
            }
            self.attachment.observed_delta(changed).await
        };
        match told {
            Ok(()) => self.told = now,
            // It is told with the next look.
            Err(refusal) => tracing::debug!(node = %self.node, %refusal, "not taken"),
        }
    }

    /// What a heartbeat says of copies that are to run, as long as the agent itself cannot be asked.
    pub(super) async fn observe_beat(&mut self, statuses: &[control::WorkloadStatus]) {
        let fleet = self.door.control.fleet_id();
        let wants = want::of(&self.door.control.view(), self.node, fleet);
        self.remember(&wants);
        let wall = self.door.now();
        let mut units = Vec::new();
        for status in statuses {
            let want = wants.get(&status.workload_id);
            let want = want.filter(|want| want.goal == Goal::Run);
            let Some((want, told)) = want.zip(seen::told_by_beat(status, wall)) else {
                continue;
            };
            if let Some(state) = self.state(want, told, false) {
                units.push(unit_of(want, want.unit, state));
            }
        }
        if units.is_empty() {
            return;
        }
        for unit in &units {
            self.told.insert(unit.unit, unit.clone());
        }
        if let Err(refusal) = self.attachment.observed_delta(units).await {
            tracing::debug!(node = %self.node, %refusal, "not taken");
            self.told.clear();
        }
    }

    fn note(&self, want: &Want, status: Option<&WorkloadStatus>) {
        let Some(memory) = self.copies.get(&want.id) else {
            return;
        };
        let now = self.door.control.clock().uptime();
        let next_at = match memory.state {
            Some(UnitState::Failed { retry_at, .. }) => memory.tries.wait(now).map(|_| retry_at),
            _ => None,
        };
        let address = status.and_then(|it| it.metadata.get("vm.primary_ip"));
        let attempts = memory.tries.attempts;
        self.door.notes.write(want.workload, |note| {
            note.attempts = attempts;
            note.next_at = next_at;
            note.address = address.cloned().unwrap_or_default();
            if let Some(usage) = status.and_then(|it| it.usage.as_ref()) {
                note.usage = Some(super::super::views::usage(usage));
            }
        });
    }
}

fn unit_of(want: &Want, unit: UnitId, state: UnitState) -> ObservedUnit {
    ObservedUnit {
        unit,
        workload: want.workload,
        kind: want.kind,
        state,
        runs: 1,
        parts: Vec::new(),
        health: None,
        crash_loop: None,
    }
}
