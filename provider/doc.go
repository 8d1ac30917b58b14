// Package provider turns the needs of volumes into files, and keeps these up to date. It
// logs in to Vault, fetches what templates need, renders them, renews and replaces what
// expires, and revokes the Vault token when the volume is gone.
//
// It never touches the file system: the driver owns each Volume, and takes the files and
// the record through its Sink. It knows no Kubernetes API and no CSI. It imports vault,
// template, fairqueue, limits and recovery below this directory, and nothing of the driver.
//
// # Publish
//
//	Manager.Publish
//	  newVolume, joinShared           with --share-logins, for pods of a service account
//	  Volume.publish
//	    execute                       all templates without a value: what is invalid, what is missing
//	    fetchPass.run                 log in (session.token, session.login)
//	      fetchPass.render            until nothing is missing:
//	        fetchMissing, fetch         read what is missing, then write (ssh/sign, pki/issue)
//	        execute                     all templates with the values, in one call of the Renderer
//	  Volume.save                     Sink.Save
//	the driver attaches the files, then
//	Volume.Start                      starts Volume.run
//
// # Refresh
//
//	Volume.run                        waits for what is due, for UpdateCredentials and for Refresh
//	  acquireTurn                     fair by namespace, limited on the node
//	  refresh, update
//	    takeRequest                   the last republish: credentials, certificates, files
//	    session.maintain              renew the token, or replace it before it expires
//	    fetchPass.refreshDue          renewLeases, refetch: each dependency has its own error
//	    fetchPass.rewrite             if a value has changed:
//	      save, write                   render, Sink.Replace, dependencies.accept
//	      admitHalves, reject           the candidates that fit, if not all do
//	    finish                        Sink.Refreshed, the log, and when the next refresh is due
//	  save                            Sink.Save, if anything has changed
//
// # Unpublish
//
//	Volume.Close                      ends run, and waits for a call of the Sink, not for Vault
//	  leaveShared                     the last member ends the shared session
//	  session.revoke
//	    revocations.add               saved, then tried by revocations.run until the token expires
//
// # Restart
//
//	Manager.Shutdown                  refreshes in progress end, due revocations are tried
//	Manager.RestoreSessions           restoreShared, revocations.restore
//	Manager.Restore                   for each record: restoreVolume; then Volume.Start
//	Manager.TakeOver                  for a mounted volume without a record
//	Manager.FinishRestore             ends shared sessions without members
//
// A restart sends no request before something is due.
//
// # States
//
// A session has no token, a current one, or a current one and older ones that drain:
//
//	no token --login--> current --renewed--> current
//	current --refused, or near its max TTL--> login --> current, and the old one drains
//	current --unknown to Vault (ErrTokenGone)--> login
//	login --error--> retryState --later--> login
//	any --Close--> queue of revocations --revoked, or expired--> gone
//
// Leases under a token that drains are replaced by new ones, or renewed if Vault issues none.
//
// A dependency is missing, fresh, or due; with a renewable lease it is renewed, otherwise
// fetched again. A new value is a candidate until the files are made of it. It is accepted
// by the first write that succeeds. If its content does not fit, the files show the accepted
// value, and it is tried again with its misfit's retryState.
//
// A volume is published (up to date, dirty, or failing) until it is closed. It is dirty
// between a change of a value and the next Sink.Replace that succeeds.
//
// # Where to change what
//
//	when a lease or token is renewed, or a secret fetched again   lease.go
//	backoff, kinds of errors                                      lease.go (retryState, errorKinds)
//	login, tokens                                                 session.go, shared.go
//	what the next process knows                                   record.go (raise recordVersion)
//	what operators see                                            types.go (Status, Stats)
//	limits of counts and sizes                                    limits; of times: manager.go
package provider
