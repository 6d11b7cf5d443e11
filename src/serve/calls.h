// How a flow asks the origin: take a call from its pool, begin it, wait, look, put it back. An interrupted or late request
// lets go of its call, which then disposes of itself when it ends.
//   Thread    the core's; included by the flows only
//   Form      in a Task:
//               Pending<LookupCall>* call = server.take_call(server.lookups_, request);   // null: refuse with EAGAIN
//               server.volume().origin->begin_lookup(server.reactor(), *call);
//               co_await request.event;
//               if (!server.call_ended(request)) { reply_given_up; }  else use *call, then put_call
#pragma once

#include "serve/volume_server.h"

namespace blobcache::serve {

template <class Call>
void VolumeServer::on_call_done(OriginCall& base) {
  auto& call = static_cast<Pending<Call>&>(base);
  VolumeServer& self = *call.server;
  call.done = true;
  if (call.request == nullptr) {
    self.dispose(call);
    return;
  }
  call.server->note_tier(*call.request, Tier::origin);
  call.request->event.set();
}

template <class Call>
Pending<Call>* VolumeServer::take_call(Pool<Pending<Call>>& pool, Request& request) {
  Pending<Call>* call = pool.try_acquire();
  if (call == nullptr) return nullptr;
  call->server = this;
  call->request = &request;
  call->request_id = request.trail.id;
  call->done = false;
  call->failed = false;
  call->on_done = &VolumeServer::on_call_done<Call>;
  request.event.reset();
  request.cancel_wait = [](Request& waiting) { waiting.event.set(); };
  return call;
}

// After the wait: true when the call has ended, false when the request was interrupted or is late and the call was let go.
template <class Call>
bool call_ended(Request& request, Pending<Call>& call) {
  request.cancel_wait = nullptr;
  if (call.done) return true;
  call.request = nullptr;
  return false;
}

template <class Call>
void VolumeServer::put_call(Pool<Pending<Call>>& pool, Pending<Call>& call) {
  call.request = nullptr;
  pool.release(call);
}

}  // namespace blobcache::serve
