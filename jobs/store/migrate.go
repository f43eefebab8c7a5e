package store

import (
	"context"
	"fmt"
	"strings"
)

// migrations make the tables: the first those of version 1, and so on. What
// was released is never changed, only added to.
var migrations = [][]string{
	{
		`CREATE TABLE keywright_journal (
			job {name} NOT NULL PRIMARY KEY,
			epoch {int} NOT NULL,
			owner TEXT NOT NULL,
			session TEXT NOT NULL,
			expires {time},
			seq {int} NOT NULL DEFAULT 0,
			record {blob},
			sum TEXT NOT NULL DEFAULT '',
			prev_seq {int} NOT NULL DEFAULT 0,
			prev_record {blob},
			prev_sum TEXT NOT NULL DEFAULT '',
			audit_seq {int} NOT NULL DEFAULT 0
		) {strict}`,
		`CREATE TABLE keywright_audit (
			job {name} NOT NULL,
			seq {int} NOT NULL,
			line {blob} NOT NULL,
			PRIMARY KEY (job, seq)
		) {strict}`,
		`CREATE TABLE keywright_reserve (
			job {name} NOT NULL,
			n {int} NOT NULL,
			ballast {blob} NOT NULL,
			PRIMARY KEY (job, n)
		) {strict}`,
		`CREATE TABLE keywright_schedule (
			job {name} NOT NULL PRIMARY KEY,
			due {time},
			spec TEXT NOT NULL,
			owner TEXT NOT NULL,
			last_run {time},
			last_state TEXT NOT NULL DEFAULT '',
			last_problem TEXT NOT NULL DEFAULT '',
			attempts {int} NOT NULL DEFAULT 0,
			created {time} NOT NULL,
			updated {time} NOT NULL
		) {strict}`,
		`CREATE INDEX keywright_schedule_due ON keywright_schedule (due, job)`,
		`CREATE TABLE keywright_runs (
			id {id},
			job {name} NOT NULL,
			operation TEXT NOT NULL,
			owner TEXT NOT NULL,
			started {time} NOT NULL,
			finished {time},
			state TEXT NOT NULL,
			problem TEXT NOT NULL,
			resume_at {time}
		) {strict}`,
		`CREATE INDEX keywright_runs_job ON keywright_runs (job, id)`,
		`CREATE TABLE keywright_events (
			id {id},
			job {name} NOT NULL,
			operation TEXT NOT NULL,
			at {time} NOT NULL,
			kind TEXT NOT NULL,
			state_from TEXT NOT NULL,
			state_to TEXT NOT NULL,
			sink TEXT NOT NULL,
			text TEXT NOT NULL
		) {strict}`,
		`CREATE INDEX keywright_events_job ON keywright_events (job, id)`,
		// Package jobs uses these two. Their times are in microseconds since
		// 1970; 0: none.
		`CREATE TABLE keywright_facts (
			job {name} NOT NULL PRIMARY KEY,
			generation {int} NOT NULL,
			finished {int} NOT NULL,
			issued {int} NOT NULL,
			expires {int} NOT NULL,
			looked {int} NOT NULL,
			run {int} NOT NULL
		) {strict}`,
		`CREATE TABLE keywright_rates (
			provider {name} NOT NULL PRIMARY KEY,
			next {int} NOT NULL
		) {strict}`,
		// One row: which database this is, and when its journals were moved to
		// another.
		`CREATE TABLE keywright_database (
			id TEXT NOT NULL PRIMARY KEY,
			moved {time}
		) {strict}`,
		`INSERT INTO keywright_database (id) VALUES ({random})`,
		// What was moved from others to this one. The source of a directory is
		// empty.
		`CREATE TABLE keywright_received (
			job {name} NOT NULL,
			source TEXT NOT NULL,
			digest TEXT NOT NULL,
			PRIMARY KEY (job, source, digest)
		) {strict}`,
	},
}

// migrate brings the tables up to this program's version, in one transaction.
// Of several processes that do so at once, one does it, and the others find it
// done. It refuses a database whose journals were moved to another.
func (s *Store) migrate(ctx context.Context) error {
	if err := s.migrateTo(ctx, migrations); err != nil {
		return err
	}
	return s.stays(ctx, s.row)
}

func (s *Store) migrateTo(ctx context.Context, migrations [][]string) error {
	known := len(migrations)
	var version int
	const latest = `SELECT COALESCE(MAX(version), 0) FROM keywright_schema`
	// A role that may not make tables can use those that are there.
	if err := s.row(ctx, latest).Scan(&version); err == nil && version >= known {
		return newer(version, known)
	}
	return s.inTx(ctx, func(t *tx) error {
		if s.dialect.migrate != "" {
			if _, err := t.ExecContext(ctx, s.dialect.migrate); err != nil {
				return err
			}
		}
		if _, err := t.ExecContext(ctx, s.words.Replace(`CREATE TABLE IF NOT EXISTS keywright_schema (version {int} NOT NULL PRIMARY KEY) {strict}`)); err != nil {
			return err
		}
		if err := t.row(ctx, latest).Scan(&version); err != nil {
			return err
		}
		if err := newer(version, known); err != nil {
			return err
		}
		for v := version; v < known; v++ {
			for _, statement := range migrations[v] {
				if _, err := t.ExecContext(ctx, s.words.Replace(statement)); err != nil {
					name, _, _ := strings.Cut(statement, "(")
					return fmt.Errorf("migration %d: %s: %w", v+1, strings.TrimSpace(name), err)
				}
			}
			if _, err := t.exec(ctx, `INSERT INTO keywright_schema (version) VALUES (?)`, v+1); err != nil {
				return err
			}
		}
		return nil
	})
}

// newer refuses a version that this program does not know.
func newer(version, known int) error {
	if version <= known {
		return nil
	}
	return fmt.Errorf("%w: it has version %d, and this program knows versions up to %d; run a newer program, or restore a backup from before", ErrVersion, version, known)
}
