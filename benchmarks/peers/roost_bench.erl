%% Both ends of the benchmark in distributed Erlang: gen_server calls and casts between two nodes or more.
%%
%% `answering` says its process id, and serves until its standard input ends. `calling` is given the names of the
%% answering nodes; it says its process id, and then answers each line of its input, a job and its seconds, with the
%% outcome as a line of JSON: see driver.py.

-module(roost_bench).
-behaviour(gen_server).
-export([answering/0, calling/0]).
-export([init/1, handle_call/3, handle_cast/2]).

-define(WARM_UP_CALLS, 1000).
-define(LARGE_IN_FLIGHT, 8).

init(_) -> {ok, 0}.

handle_call({echo, Payload}, _From, Count) -> {reply, Payload, Count};
handle_call({size, Payload}, _From, Count) -> {reply, byte_size(Payload), Count};
handle_call(casts, _From, Count) -> {reply, Count, 0}.

handle_cast({count, _Payload}, Count) -> {noreply, Count + 1}.

answering() ->
    {ok, _} = gen_server:start({local, echo}, ?MODULE, [], []),
    io:format("~s~n", [os:getpid()]),
    until_input_ends(),
    halt(0).

until_input_ends() ->
    case io:get_line("") of
        eof -> ok;
        _ -> until_input_ends()
    end.

calling() ->
    Nodes = [list_to_atom(Name) || Name <- init:get_plain_arguments()],
    Servers = [{echo, Node} || Node <- Nodes],
    [pong = net_adm:ping(Node) || Node <- Nodes],
    [gen_server:call(Server, {echo, small()}) || Server <- Servers, _ <- lists:seq(1, ?WARM_UP_CALLS)],
    io:format("~s~n", [os:getpid()]),
    jobs(Servers),
    halt(0).

jobs(Servers) ->
    case io:get_line("") of
        eof -> ok;
        Line ->
            [Job, Seconds] = string:lexemes(Line, " \n"),
            {Count, Elapsed, P50, P99} = job(Job, Servers, list_to_float(Seconds)),
            io:format("{\"count\":~b,\"seconds\":~.6f,\"p50_microseconds\":~.3f,\"p99_microseconds\":~.3f}~n",
                      [Count, Elapsed, P50, P99]),
            jobs(Servers)
    end.

job("one", [Server | _], Seconds) -> one(Server, Seconds);
job("calls-64", [Server | _], Seconds) -> throughput([Server], {echo, small()}, 64, Seconds);
job("calls-1024", [Server | _], Seconds) -> throughput([Server], {echo, small()}, 1024, Seconds);
job("fan-out", Servers, Seconds) -> throughput(Servers, {echo, small()}, 64, Seconds);
job("casts", [Server | _], Seconds) -> casts(Server, Seconds);
job("64KiB", [Server | _], Seconds) -> throughput([Server], {size, large(65536)}, ?LARGE_IN_FLIGHT, Seconds);
job("1MiB", [Server | _], Seconds) -> throughput([Server], {size, large(1048576)}, ?LARGE_IN_FLIGHT, Seconds).

small() -> large(100).
large(Size) -> binary:copy(<<"x">>, Size).

now_seconds() -> erlang:monotonic_time(nanosecond) / 1.0e9.

one(Server, Seconds) ->
    Started = now_seconds(),
    Times = lists:sort(round_trips(Server, {echo, small()}, Started + Seconds, Started, [])),
    Count = length(Times),
    P50 = lists:nth(Count * 50 div 100 + 1, Times),
    P99 = lists:nth(Count * 99 div 100 + 1, Times),
    {Count, lists:sum(Times), P50 * 1.0e6, P99 * 1.0e6}.

round_trips(_Server, _Request, Stop, Before, Times) when Before >= Stop -> Times;
round_trips(Server, Request, Stop, Before, Times) ->
    gen_server:call(Server, Request, infinity),
    After = now_seconds(),
    round_trips(Server, Request, Stop, After, [After - Before | Times]).

throughput(Servers, Request, InFlight, Seconds) ->
    Started = now_seconds(),
    Stop = Started + Seconds,
    Me = self(),
    [spawn_link(fun() -> Me ! {finished, calls(lists:nth(Number rem length(Servers) + 1, Servers), Request, Stop, 0)} end)
     || Number <- lists:seq(1, InFlight)],
    Count = lists:sum([receive {finished, Finished} -> Finished end || _ <- lists:seq(1, InFlight)]),
    {Count, now_seconds() - Started, 0.0, 0.0}.

calls(Server, Request, Stop, Finished) ->
    case now_seconds() < Stop of
        true ->
            gen_server:call(Server, Request, infinity),
            calls(Server, Request, Stop, Finished + 1);
        false -> Finished
    end.

casts(Server, Seconds) ->
    Started = now_seconds(),
    send_casts(Server, {count, small()}, Started + Seconds),
    Arrived = gen_server:call(Server, casts, infinity),
    {Arrived, now_seconds() - Started, 0.0, 0.0}.

send_casts(Server, Message, Stop) ->
    case now_seconds() < Stop of
        true ->
            [gen_server:cast(Server, Message) || _ <- lists:seq(1, 100)],
            send_casts(Server, Message, Stop);
        false -> ok
    end.
