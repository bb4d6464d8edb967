/**
 * Which of our scenario files cover which of etcd-raft's: each of their situations is in one of ours, with our own
 * words and numbers. Paths without the extension, below the folder with all of them.
 */
export const COVERED_BY: Readonly<Record<string, readonly string[]>> = {
  // A pipeline of writes that finish late, and of entries applied later still.
  "interaction/async_storage_writes": ["group/storage_writes_pipeline", "group/storage_writes_single_voter"],
  // A write finishes whose entries were overwritten in memory, twice, in other terms.
  "interaction/async_storage_writes_append_aba_race": ["group/storage_writes_overwritten_in_flight"],
  "interaction/campaign": ["group/election_five_voters", "group/election_split_vote"],
  // A learner that does not know that it is a voter votes.
  "interaction/campaign_learner_must_vote": ["group/election_learner_votes_unaware"],
  // A leader without answers steps down; a node that hears from a leader votes for no candidate.
  "interaction/checkquorum": ["group/checkquorum_leader_steps_down"],
  "interaction/confchange_disable_validation": ["group/confchange_unvalidated"],
  "interaction/confchange_v1_add_single": ["group/confchange_grow_by_one"],
  // A leader removes itself: it does not count for later entries, and stays, or steps down.
  "interaction/confchange_v1_remove_leader": ["group/confchange_leader_removed_stays"],
  "interaction/confchange_v1_remove_leader_stepdown": ["group/confchange_leader_removed_steps_down"],
  // Two changes at a time, in and out; proposals meanwhile; messages from removed members.
  "interaction/confchange_v2_add_double_auto": ["group/confchange_grow_and_shrink_by_two"],
  // Explicitly joint, left automatically; ours also by another leader than the one that began.
  "interaction/confchange_v2_add_double_implicit": ["group/confchange_joint_left_automatically"],
  "interaction/confchange_v2_add_single_auto": ["group/confchange_grow_by_one"],
  // Joint until told to leave: no change meanwhile, and it is left only once.
  "interaction/confchange_v2_add_single_explicit": [
    "group/confchange_joint_left_by_hand",
    "group/confchange_demote_through_joint",
  ],
  "interaction/confchange_v2_replace_leader": ["group/confchange_leader_replaced_by_transfer"],
  "interaction/confchange_v2_replace_leader_stepdown": ["group/confchange_leader_replaced_steps_down"],
  "interaction/forget_leader": ["group/forget_leader"],
  "interaction/forget_leader_prevote_checkquorum": ["group/prevote_forgotten_leader"],
  "interaction/forget_leader_read_only_lease_based": ["group/read_index_lease_keeps_leader"],
  "interaction/heartbeat_resp_recovers_from_probing": ["group/replication_probe_ended_by_heartbeat"],
  "interaction/lagging_commit": ["group/replication_commit_lags"],
  "interaction/prevote": ["group/prevote_short_log"],
  "interaction/prevote_checkquorum": ["group/prevote_heard_from_leader"],
  // Logs behind, ahead and with tails of other terms: the search for the match skips terms on both sides.
  "interaction/probe_and_replicate": ["group/replication_logs_of_many_terms", "group/replication_divergent_tail"],
  // A full window whose messages are all lost.
  "interaction/replicate_pause": ["group/replication_window_in_messages", "group/replication_window_in_bytes"],
  "interaction/single_node": ["group/election_single_voter"],
  "interaction/slow_follower_after_compaction": ["group/snapshot_for_a_full_window"],
  "interaction/snapshot_succeed_via_app_resp": ["group/snapshot_at_the_end_of_the_log"],
  "interaction/snapshot_succeed_via_app_resp_behind": ["group/snapshot_older_than_asked"],
  "confchange/joint_autoleave": ["confchange/joint_left_automatically"],
  "confchange/joint_idempotency": ["confchange/joint_last_word_counts"],
  "confchange/joint_learners_next": ["confchange/joint_demotes_later"],
  "confchange/joint_safety": ["confchange/joint_begins_and_ends"],
  "confchange/simple_idempotency": ["confchange/voters_and_learners_one_by_one"],
  "confchange/simple_promote_demote": ["confchange/simple_with_several"],
  "confchange/simple_safety": ["confchange/simple_refused", "confchange/simple_with_several"],
  "confchange/update": ["confchange/updates_and_nobody"],
  "confchange/zero": ["confchange/updates_and_nobody"],
  "quorum/joint_commit": ["quorum/committed_by_both_halves"],
  "quorum/joint_vote": ["quorum/vote_of_both_halves"],
  "quorum/majority_commit": ["quorum/committed_by_a_majority"],
  "quorum/majority_vote": ["quorum/vote_of_a_majority"],
};
