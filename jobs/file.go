package jobs

import (
	"errors"
	"iter"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/jobs/schedule"
	"github.com/keywright/keywright/rotation/jobfile"
)

// FileOptions are what a job file is to be loaded with when a [Runner] works
// it: its clients have [Guard], and its schedules are checked in full.
//
//	f, err := jobfile.Load("keywright.yaml", jobs.FileOptions()...)
func FileOptions() []jobfile.Option {
	return []jobfile.Option{
		jobfile.WithClientOptions(keywright.WithMiddleware(Guard)),
		jobfile.WithScheduleCheck(func(text []byte) error {
			_, err := schedule.Parse(text)
			return err
		}),
	}
}

// FromFile makes jobs of a job file, with their schedules and owners. One that
// cannot be made has its error in Job.Err. The file is to be loaded with
// [FileOptions].
func FromFile(f *jobfile.File) iter.Seq[Job] {
	owners := make(map[string]string, len(f.Jobs))
	for i := range f.Jobs {
		owners[f.Jobs[i].Name] = f.Jobs[i].Owner
	}
	return From(f.All(), func(job *Job) {
		job.Owner = owners[job.Name]
		if text := f.Schedule(job.Name); text != nil {
			var err error
			job.Schedule, err = schedule.Parse(text)
			job.Err = errors.Join(job.Err, err)
		}
	})
}
