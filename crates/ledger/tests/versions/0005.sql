-- A ledger of version 5 with rows in every table: that of version 4, brought to it.
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE sessions (
  n INTEGER PRIMARY KEY,
  id INTEGER NOT NULL UNIQUE,
  name TEXT NOT NULL UNIQUE,
  created INTEGER NOT NULL,
  sequence INTEGER NOT NULL          -- of the last event
, first INTEGER NOT NULL DEFAULT 1) STRICT;
INSERT INTO sessions VALUES(1,1064131386981570811,'work',1000000,85,1);
INSERT INTO sessions VALUES(2,580399502829821205,'other',1500000,4,2);
CREATE TABLE repositories (
  n INTEGER PRIMARY KEY,
  id INTEGER NOT NULL UNIQUE,
  path TEXT NOT NULL UNIQUE,
  created INTEGER NOT NULL
) STRICT;
INSERT INTO repositories VALUES(1,975683153119789622,'/r',1000000);
CREATE TABLE events (
  n INTEGER PRIMARY KEY,
  session INTEGER NOT NULL,          -- sessions.n
  sequence INTEGER NOT NULL,
  id INTEGER NOT NULL,
  time INTEGER NOT NULL,
  request INTEGER,
  attempt INTEGER,                   -- only where the event is a check's evidence
  body TEXT NOT NULL
, request_row INTEGER) STRICT;
INSERT INTO events VALUES(1,1,1,1092181050935356802,1000000,NULL,NULL,'{"type":"session_created","payload":{"name":"work"}}',NULL);
INSERT INTO events VALUES(2,1,2,824274921683111850,1000000,807972070758754248,NULL,'{"type":"request_submitted","payload":{"request":"r-pdkya55069y8","title":"Mend the parser","base":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","budget":{"tokens":1000,"money":1000,"wall_ms":1000000,"iterations":1000}}}',1);
INSERT INTO events VALUES(3,1,3,40984948771068366,1000000,807972070758754248,NULL,'{"type":"request_changed","payload":{"request":"r-pdkya55069y8","from":"queued","to":"planning","failure":null}}',1);
INSERT INTO events VALUES(4,1,4,190926948544944334,1000000,807972070758754248,NULL,'{"type":"planned","payload":{"request":"r-pdkya55069y8","jobs":[{"job":"j-1bqwstjnzwty","name":"one","title":"do one","after":[]},{"job":"j-72xq1xn0ghkg","name":"two","title":"do two","after":["j-1bqwstjnzwty"]}],"note":"a note"}}',1);
INSERT INTO events VALUES(5,1,5,582400601625325361,1000000,807972070758754248,NULL,'{"type":"request_changed","payload":{"request":"r-pdkya55069y8","from":"planning","to":"working","failure":null}}',1);
INSERT INTO events VALUES(6,1,6,889604308536955246,1000000,807972070758754248,NULL,'{"type":"job_changed","payload":{"job":"j-1bqwstjnzwty","from":"ready","to":"leased","failure":null}}',1);
INSERT INTO events VALUES(7,1,7,119599287401327085,1000000,807972070758754248,NULL,'{"type":"job_changed","payload":{"job":"j-1bqwstjnzwty","from":"leased","to":"running","failure":null}}',1);
INSERT INTO events VALUES(8,1,8,798733873895040130,1000000,807972070758754248,NULL,'{"type":"attempt_started","payload":{"attempt":"a-a9pkz3hy14zv","job":"j-1bqwstjnzwty","number":1,"base":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","agent":"built-in","model":"test/model","sandbox":"namespace"}}',1);
INSERT INTO events VALUES(9,1,9,409538803666299581,1000000,807972070758754248,NULL,'{"type":"attempt_changed","payload":{"attempt":"a-a9pkz3hy14zv","from":"preparing","to":"running","failure":null}}',1);
INSERT INTO events VALUES(10,1,10,830853586356737067,1000000,807972070758754248,NULL,'{"type":"agent","payload":{"attempt":"a-a9pkz3hy14zv","event":{"kind":"turn","round":1,"feedback":"33c87625ba07d2fe2b748d75d5ffd45955f78d91832defe14eda98970e35dfa8"}}}',1);
INSERT INTO events VALUES(11,1,11,724517286035976759,1000000,807972070758754248,NULL,'{"type":"agent","payload":{"attempt":"a-a9pkz3hy14zv","event":{"kind":"tool_result","id":"t","output":"x","omitted":4,"ok":true,"duration_ms":3,"full":"33c87625ba07d2fe2b748d75d5ffd45955f78d91832defe14eda98970e35dfa8"}}}',1);
INSERT INTO events VALUES(12,1,12,639892111560774302,1000000,807972070758754248,NULL,'{"type":"note","payload":{"text":"a note"}}',1);
INSERT INTO events VALUES(13,1,13,465844751082187999,1000000,807972070758754248,NULL,'{"type":"model_called","payload":{"attempt":"a-a9pkz3hy14zv","model":"test/model","call":1,"spent":{"tokens":20,"money":7,"wall_ms":0,"iterations":0},"metered":true,"priced":true,"status":200,"duration_ms":5}}',1);
INSERT INTO events VALUES(14,1,14,1032852682194609052,1000000,807972070758754248,NULL,'{"type":"job_changed","payload":{"job":"j-1bqwstjnzwty","from":"running","to":"checking","failure":null}}',1);
INSERT INTO events VALUES(15,1,15,648109923791503447,1000000,807972070758754248,NULL,'{"type":"attempt_changed","payload":{"attempt":"a-a9pkz3hy14zv","from":"running","to":"checking","failure":null}}',1);
INSERT INTO events VALUES(16,1,16,604940530143577273,1000000,807972070758754248,371217085233140731,'{"type":"checked","payload":{"attempt":"a-a9pkz3hy14zv","change":null,"round":1,"evidence":{"check":"test","verdict":"passed","command":"true","exit_code":0,"findings":"","output":"33c87625ba07d2fe2b748d75d5ffd45955f78d91832defe14eda98970e35dfa8","duration_ms":2,"tree":"dddddddddddddddddddddddddddddddddddddddd"}}}',1);
INSERT INTO events VALUES(17,1,17,530202048695640050,1250000,807972070758754248,NULL,'{"type":"attempt_changed","payload":{"attempt":"a-a9pkz3hy14zv","from":"checking","to":"passed","failure":null}}',1);
INSERT INTO events VALUES(18,1,18,409104134153788599,1250000,807972070758754248,NULL,'{"type":"change_made","payload":{"change":"c-ekwv63ezcc9g","attempt":"a-a9pkz3hy14zv","commit":"cccccccccccccccccccccccccccccccccccccccc"}}',1);
INSERT INTO events VALUES(19,1,19,189952794598258623,1250000,807972070758754248,NULL,'{"type":"job_changed","payload":{"job":"j-1bqwstjnzwty","from":"checking","to":"delivered","failure":null}}',1);
INSERT INTO events VALUES(20,1,20,296863953692675700,1250000,807972070758754248,NULL,'{"type":"change_changed","payload":{"change":"c-ekwv63ezcc9g","from":"queued","to":"merging","integrated":null,"conflicts":[],"failure":null}}',1);
INSERT INTO events VALUES(21,1,21,296233273021302292,1250000,807972070758754248,NULL,'{"type":"change_changed","payload":{"change":"c-ekwv63ezcc9g","from":"merging","to":"checking","integrated":null,"conflicts":[],"failure":null}}',1);
INSERT INTO events VALUES(22,1,22,804977488783501465,1250000,807972070758754248,NULL,'{"type":"change_changed","payload":{"change":"c-ekwv63ezcc9g","from":"checking","to":"integrated","integrated":"eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee","conflicts":[],"failure":null}}',1);
INSERT INTO events VALUES(23,1,23,6467681231991523,1250000,807972070758754248,NULL,'{"type":"job_changed","payload":{"job":"j-72xq1xn0ghkg","from":"blocked","to":"ready","failure":null}}',1);
INSERT INTO events VALUES(24,1,24,934103163133303887,1250000,807972070758754248,NULL,'{"type":"job_changed","payload":{"job":"j-72xq1xn0ghkg","from":"ready","to":"leased","failure":null}}',1);
INSERT INTO events VALUES(25,1,25,59880318863724056,1250000,807972070758754248,NULL,'{"type":"job_changed","payload":{"job":"j-72xq1xn0ghkg","from":"leased","to":"running","failure":null}}',1);
INSERT INTO events VALUES(26,1,26,24326661957834820,1250000,807972070758754248,NULL,'{"type":"attempt_started","payload":{"attempt":"a-ykr9rf0b3kcq","job":"j-72xq1xn0ghkg","number":1,"base":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","agent":"built-in","model":"test/model","sandbox":"namespace"}}',1);
INSERT INTO events VALUES(27,1,27,348279568533897869,1250000,807972070758754248,NULL,'{"type":"attempt_changed","payload":{"attempt":"a-ykr9rf0b3kcq","from":"preparing","to":"running","failure":null}}',1);
INSERT INTO events VALUES(28,1,28,1032375694557759789,1250000,807972070758754248,NULL,'{"type":"agent","payload":{"attempt":"a-ykr9rf0b3kcq","event":{"kind":"turn","round":1,"feedback":"33c87625ba07d2fe2b748d75d5ffd45955f78d91832defe14eda98970e35dfa8"}}}',1);
INSERT INTO events VALUES(29,1,29,153389959677563105,1250000,807972070758754248,NULL,'{"type":"agent","payload":{"attempt":"a-ykr9rf0b3kcq","event":{"kind":"tool_result","id":"t","output":"x","omitted":4,"ok":true,"duration_ms":3,"full":"33c87625ba07d2fe2b748d75d5ffd45955f78d91832defe14eda98970e35dfa8"}}}',1);
INSERT INTO events VALUES(30,1,30,545127865329422266,1250000,807972070758754248,NULL,'{"type":"note","payload":{"text":"a note"}}',1);
INSERT INTO events VALUES(31,1,31,421571751871319531,1250000,807972070758754248,NULL,'{"type":"model_called","payload":{"attempt":"a-ykr9rf0b3kcq","model":"test/model","call":1,"spent":{"tokens":20,"money":7,"wall_ms":0,"iterations":0},"metered":true,"priced":true,"status":200,"duration_ms":5}}',1);
INSERT INTO events VALUES(32,1,32,631716738891304181,1250000,807972070758754248,NULL,'{"type":"job_changed","payload":{"job":"j-72xq1xn0ghkg","from":"running","to":"checking","failure":null}}',1);
INSERT INTO events VALUES(33,1,33,993526307722432768,1250000,807972070758754248,NULL,'{"type":"attempt_changed","payload":{"attempt":"a-ykr9rf0b3kcq","from":"running","to":"checking","failure":null}}',1);
INSERT INTO events VALUES(34,1,34,786604656269994863,1250000,807972070758754248,1103111170085211543,'{"type":"checked","payload":{"attempt":"a-ykr9rf0b3kcq","change":null,"round":1,"evidence":{"check":"test","verdict":"passed","command":"true","exit_code":0,"findings":"","output":"33c87625ba07d2fe2b748d75d5ffd45955f78d91832defe14eda98970e35dfa8","duration_ms":2,"tree":"dddddddddddddddddddddddddddddddddddddddd"}}}',1);
INSERT INTO events VALUES(35,1,35,740259827321421896,1500000,807972070758754248,NULL,'{"type":"attempt_changed","payload":{"attempt":"a-ykr9rf0b3kcq","from":"checking","to":"passed","failure":null}}',1);
INSERT INTO events VALUES(36,1,36,31037058286174431,1500000,807972070758754248,NULL,'{"type":"change_made","payload":{"change":"c-vv4vqhk12a67","attempt":"a-ykr9rf0b3kcq","commit":"cccccccccccccccccccccccccccccccccccccccc"}}',1);
INSERT INTO events VALUES(37,1,37,671167685769551420,1500000,807972070758754248,NULL,'{"type":"job_changed","payload":{"job":"j-72xq1xn0ghkg","from":"checking","to":"delivered","failure":null}}',1);
INSERT INTO events VALUES(38,1,38,105945888081501822,1500000,807972070758754248,NULL,'{"type":"request_changed","payload":{"request":"r-pdkya55069y8","from":"working","to":"integrating","failure":null}}',1);
INSERT INTO events VALUES(39,1,39,715366752304486593,1500000,807972070758754248,NULL,'{"type":"change_changed","payload":{"change":"c-vv4vqhk12a67","from":"queued","to":"merging","integrated":null,"conflicts":[],"failure":null}}',1);
INSERT INTO events VALUES(40,1,40,725099469635124264,1500000,807972070758754248,NULL,'{"type":"change_changed","payload":{"change":"c-vv4vqhk12a67","from":"merging","to":"checking","integrated":null,"conflicts":[],"failure":null}}',1);
INSERT INTO events VALUES(41,1,41,237082600422321789,1500000,807972070758754248,NULL,'{"type":"change_changed","payload":{"change":"c-vv4vqhk12a67","from":"checking","to":"integrated","integrated":"eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee","conflicts":[],"failure":null}}',1);
INSERT INTO events VALUES(42,1,42,24288327920647869,1500000,807972070758754248,NULL,'{"type":"request_changed","payload":{"request":"r-pdkya55069y8","from":"integrating","to":"done","failure":null}}',1);
INSERT INTO events VALUES(43,1,43,95980887542487760,1500000,807972070758754248,NULL,'{"type":"published","payload":{"request":"r-pdkya55069y8","branch":"skep/integration","commit":"eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee","refused":null}}',1);
INSERT INTO events VALUES(44,1,44,103720277467271133,1500000,1139378040933840745,NULL,'{"type":"request_submitted","payload":{"request":"r-zkz29ahbvxv9","title":"Mend the parser","base":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","budget":{"tokens":1000,"money":1000,"wall_ms":1000000,"iterations":1000}}}',2);
INSERT INTO events VALUES(45,1,45,94725659294051691,1500000,1139378040933840745,NULL,'{"type":"request_changed","payload":{"request":"r-zkz29ahbvxv9","from":"queued","to":"planning","failure":null}}',2);
INSERT INTO events VALUES(46,1,46,837460306543965644,1500000,1139378040933840745,NULL,'{"type":"planned","payload":{"request":"r-zkz29ahbvxv9","jobs":[{"job":"j-jymzj6cmhy7a","name":"dies","title":"do dies","after":[]},{"job":"j-9sm38vvw9a3v","name":"after","title":"do after","after":["j-jymzj6cmhy7a"]}],"note":null}}',2);
INSERT INTO events VALUES(47,1,47,897406379661969286,1500000,1139378040933840745,NULL,'{"type":"request_changed","payload":{"request":"r-zkz29ahbvxv9","from":"planning","to":"working","failure":null}}',2);
INSERT INTO events VALUES(48,1,48,201028219985238145,1500000,1139378040933840745,NULL,'{"type":"job_changed","payload":{"job":"j-jymzj6cmhy7a","from":"ready","to":"leased","failure":null}}',2);
INSERT INTO events VALUES(49,1,49,663484953294305056,1500000,1139378040933840745,NULL,'{"type":"job_changed","payload":{"job":"j-jymzj6cmhy7a","from":"leased","to":"running","failure":null}}',2);
INSERT INTO events VALUES(50,1,50,484967982863782081,1500000,1139378040933840745,NULL,'{"type":"attempt_started","payload":{"attempt":"a-n2qyemq2ank5","job":"j-jymzj6cmhy7a","number":1,"base":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","agent":"built-in","model":"test/model","sandbox":"namespace"}}',2);
INSERT INTO events VALUES(51,1,51,98599516197518771,1500000,1139378040933840745,NULL,'{"type":"attempt_changed","payload":{"attempt":"a-n2qyemq2ank5","from":"preparing","to":"running","failure":null}}',2);
INSERT INTO events VALUES(52,1,52,73357967711860816,1500000,1139378040933840745,NULL,'{"type":"attempt_changed","payload":{"attempt":"a-n2qyemq2ank5","from":"running","to":"failed","failure":{"reason":"agent_failed","detail":"it crashed"}}}',2);
INSERT INTO events VALUES(53,1,53,61411427668849900,1500000,1139378040933840745,NULL,'{"type":"job_changed","payload":{"job":"j-jymzj6cmhy7a","from":"running","to":"dead","failure":{"reason":"agent_failed","detail":"it crashed"}}}',2);
INSERT INTO events VALUES(54,1,54,104338057268092869,1500000,1139378040933840745,NULL,'{"type":"job_changed","payload":{"job":"j-9sm38vvw9a3v","from":"blocked","to":"dead","failure":{"reason":"dependency_failed","detail":"j-jymzj6cmhy7a"}}}',2);
INSERT INTO events VALUES(55,1,55,1111705408975403966,1500000,1139378040933840745,NULL,'{"type":"request_changed","payload":{"request":"r-zkz29ahbvxv9","from":"working","to":"failed","failure":{"reason":"agent_failed","detail":"it crashed"}}}',2);
INSERT INTO events VALUES(56,1,56,475340189901315522,1500000,542106038154513891,NULL,'{"type":"request_submitted","payload":{"request":"r-f1fjj75cpkf3","title":"Mend the parser","base":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","budget":{"tokens":1000,"money":1000,"wall_ms":1000000,"iterations":1000}}}',3);
INSERT INTO events VALUES(57,1,57,680272116873077938,1500000,542106038154513891,NULL,'{"type":"request_changed","payload":{"request":"r-f1fjj75cpkf3","from":"queued","to":"cancelled","failure":{"reason":"cancelled","detail":""}}}',3);
INSERT INTO events VALUES(59,2,2,889107555511101809,1500000,1015731887978945605,NULL,'{"type":"request_submitted","payload":{"request":"r-w64trn10b725","title":"Mend the parser","base":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","budget":{"tokens":1000,"money":1000,"wall_ms":1000000,"iterations":1000}}}',4);
INSERT INTO events VALUES(60,2,3,939564187302672341,1500000,1015731887978945605,NULL,'{"type":"request_changed","payload":{"request":"r-w64trn10b725","from":"queued","to":"planning","failure":null}}',4);
INSERT INTO events VALUES(61,1,58,723539001812646012,1500000,620819801444912943,NULL,'{"type":"request_submitted","payload":{"request":"r-h7cra7vae3sf","title":"Mend the parser","base":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","budget":{"tokens":1000,"money":1000,"wall_ms":1000000,"iterations":1000}}}',5);
INSERT INTO events VALUES(62,1,59,551411988424898496,1500000,620819801444912943,NULL,'{"type":"request_changed","payload":{"request":"r-h7cra7vae3sf","from":"queued","to":"planning","failure":null}}',5);
INSERT INTO events VALUES(63,1,60,622398491866229309,1500000,620819801444912943,NULL,'{"type":"planned","payload":{"request":"r-h7cra7vae3sf","jobs":[{"job":"j-1pgq9kyd290e","name":"merges","title":"do merges","after":[]}],"note":null}}',5);
INSERT INTO events VALUES(64,1,61,607590949999752364,1500000,620819801444912943,NULL,'{"type":"request_changed","payload":{"request":"r-h7cra7vae3sf","from":"planning","to":"working","failure":null}}',5);
INSERT INTO events VALUES(65,1,62,787158256933503448,1500000,620819801444912943,NULL,'{"type":"job_changed","payload":{"job":"j-1pgq9kyd290e","from":"ready","to":"leased","failure":null}}',5);
INSERT INTO events VALUES(66,1,63,864357239501213081,1500000,620819801444912943,NULL,'{"type":"job_changed","payload":{"job":"j-1pgq9kyd290e","from":"leased","to":"running","failure":null}}',5);
INSERT INTO events VALUES(67,1,64,587403946231060002,1500000,620819801444912943,NULL,'{"type":"attempt_started","payload":{"attempt":"a-aeqwtcdzqzak","job":"j-1pgq9kyd290e","number":1,"base":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","agent":"built-in","model":"test/model","sandbox":"namespace"}}',5);
INSERT INTO events VALUES(68,1,65,11708449272494207,1500000,620819801444912943,NULL,'{"type":"attempt_changed","payload":{"attempt":"a-aeqwtcdzqzak","from":"preparing","to":"running","failure":null}}',5);
INSERT INTO events VALUES(69,1,66,714556692695381532,1500000,620819801444912943,NULL,'{"type":"job_changed","payload":{"job":"j-1pgq9kyd290e","from":"running","to":"checking","failure":null}}',5);
INSERT INTO events VALUES(70,1,67,178218306843232800,1500000,620819801444912943,NULL,'{"type":"attempt_changed","payload":{"attempt":"a-aeqwtcdzqzak","from":"running","to":"checking","failure":null}}',5);
INSERT INTO events VALUES(71,1,68,642609223982860365,1500000,620819801444912943,NULL,'{"type":"attempt_changed","payload":{"attempt":"a-aeqwtcdzqzak","from":"checking","to":"passed","failure":null}}',5);
INSERT INTO events VALUES(72,1,69,1103469526060856177,1500000,620819801444912943,NULL,'{"type":"change_made","payload":{"change":"c-p1yx6m66gb8p","attempt":"a-aeqwtcdzqzak","commit":"cccccccccccccccccccccccccccccccccccccccc"}}',5);
INSERT INTO events VALUES(73,1,70,614773055441200050,1500000,620819801444912943,NULL,'{"type":"job_changed","payload":{"job":"j-1pgq9kyd290e","from":"checking","to":"delivered","failure":null}}',5);
INSERT INTO events VALUES(74,1,71,825773021876648564,1500000,620819801444912943,NULL,'{"type":"request_changed","payload":{"request":"r-h7cra7vae3sf","from":"working","to":"integrating","failure":null}}',5);
INSERT INTO events VALUES(75,1,72,553576981321896741,1500000,620819801444912943,NULL,'{"type":"change_changed","payload":{"change":"c-p1yx6m66gb8p","from":"queued","to":"merging","integrated":null,"conflicts":[],"failure":null}}',5);
INSERT INTO events VALUES(76,1,73,126663137216038897,1500000,620819801444912943,NULL,'{"type":"change_changed","payload":{"change":"c-p1yx6m66gb8p","from":"merging","to":"checking","integrated":null,"conflicts":[],"failure":null}}',5);
INSERT INTO events VALUES(77,1,74,1022133098371905104,1500000,643712687877396780,NULL,'{"type":"request_submitted","payload":{"request":"r-hvqd8xs5g69c","title":"Mend the parser","base":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","budget":{"tokens":1000,"money":1000,"wall_ms":1000000,"iterations":1000}}}',6);
INSERT INTO events VALUES(78,1,75,1036534006298520686,1500000,643712687877396780,NULL,'{"type":"request_changed","payload":{"request":"r-hvqd8xs5g69c","from":"queued","to":"planning","failure":null}}',6);
INSERT INTO events VALUES(79,1,76,865397326828117270,1500000,643712687877396780,NULL,'{"type":"planned","payload":{"request":"r-hvqd8xs5g69c","jobs":[{"job":"j-d7nkw81yx2j8","name":"runs","title":"do runs","after":[]},{"job":"j-81eyr6319w5m","name":"ready","title":"do ready","after":[]},{"job":"j-96chy9s4dvcc","name":"blocked","title":"do blocked","after":["j-d7nkw81yx2j8"]}],"note":null}}',6);
INSERT INTO events VALUES(80,1,77,545531765120583851,1500000,643712687877396780,NULL,'{"type":"request_changed","payload":{"request":"r-hvqd8xs5g69c","from":"planning","to":"working","failure":null}}',6);
INSERT INTO events VALUES(81,1,78,848684999564473982,1500000,643712687877396780,NULL,'{"type":"job_changed","payload":{"job":"j-d7nkw81yx2j8","from":"ready","to":"leased","failure":null}}',6);
INSERT INTO events VALUES(82,1,79,535354572998860807,1500000,643712687877396780,NULL,'{"type":"job_changed","payload":{"job":"j-d7nkw81yx2j8","from":"leased","to":"running","failure":null}}',6);
INSERT INTO events VALUES(83,1,80,675532170496582646,1500000,643712687877396780,NULL,'{"type":"attempt_started","payload":{"attempt":"a-zftvf98egt13","job":"j-d7nkw81yx2j8","number":1,"base":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","agent":"built-in","model":"test/model","sandbox":"namespace"}}',6);
INSERT INTO events VALUES(84,1,81,682562514403907786,1500000,643712687877396780,NULL,'{"type":"attempt_changed","payload":{"attempt":"a-zftvf98egt13","from":"preparing","to":"running","failure":null}}',6);
INSERT INTO events VALUES(85,2,4,833972524933833556,1500000,118883816843069341,NULL,'{"type":"request_submitted","payload":{"request":"r-39jw6ec7jhwx","title":"Mend the parser","base":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","budget":{"tokens":1000,"money":1000,"wall_ms":1000000,"iterations":1000}}}',7);
INSERT INTO events VALUES(86,1,82,1029373162799431225,1500000,643712687877396780,NULL,'{"type":"job_changed","payload":{"job":"j-81eyr6319w5m","from":"ready","to":"leased","failure":null}}',6);
INSERT INTO events VALUES(87,1,83,632223325237007245,1500000,643712687877396780,NULL,'{"type":"job_changed","payload":{"job":"j-81eyr6319w5m","from":"leased","to":"parked","failure":{"reason":"rate_limited","detail":"the weekly limit"},"until":1795749700000000}}',6);
INSERT INTO events VALUES(88,1,84,1096946707801115214,61500000,643712687877396780,NULL,'{"type":"attempt_changed","payload":{"attempt":"a-zftvf98egt13","from":"running","to":"suspended","failure":{"reason":"owner_lost","detail":""}}}',6);
INSERT INTO events VALUES(89,1,85,556164368029987041,61500000,643712687877396780,NULL,'{"type":"job_changed","payload":{"job":"j-d7nkw81yx2j8","from":"running","to":"ready","failure":{"reason":"owner_lost","detail":""}}}',6);
CREATE TABLE accounts (
  n INTEGER PRIMARY KEY,
  parent INTEGER,                    -- accounts.n
  total_tokens INTEGER NOT NULL, total_money INTEGER NOT NULL,
  total_wall INTEGER NOT NULL, total_iterations INTEGER NOT NULL,
  free_tokens INTEGER NOT NULL, free_money INTEGER NOT NULL,
  free_wall INTEGER NOT NULL, free_iterations INTEGER NOT NULL,
  reserved_tokens INTEGER NOT NULL, reserved_money INTEGER NOT NULL,
  reserved_wall INTEGER NOT NULL, reserved_iterations INTEGER NOT NULL,
  committed_tokens INTEGER NOT NULL, committed_money INTEGER NOT NULL,
  committed_wall INTEGER NOT NULL, committed_iterations INTEGER NOT NULL,
  overdraft_tokens INTEGER NOT NULL, overdraft_money INTEGER NOT NULL,
  overdraft_wall INTEGER NOT NULL, overdraft_iterations INTEGER NOT NULL,
  closed INTEGER NOT NULL
) STRICT;
INSERT INTO accounts VALUES(1,NULL,1000,1000,1000000,1000,960,986,999500,1000,0,0,0,0,40,14,500,0,0,0,0,0,1);
INSERT INTO accounts VALUES(2,1,500,500,500000,500,480,493,499750,500,0,0,0,0,20,7,250,0,0,0,0,0,1);
INSERT INTO accounts VALUES(3,1,500,500,500000,500,480,493,499750,500,0,0,0,0,20,7,250,0,0,0,0,0,1);
INSERT INTO accounts VALUES(4,NULL,1000,1000,1000000,1000,1000,1000,1000000,1000,0,0,0,0,0,0,0,0,0,0,0,0,1);
INSERT INTO accounts VALUES(5,4,500,500,500000,500,500,500,500000,500,0,0,0,0,0,0,0,0,0,0,0,0,1);
INSERT INTO accounts VALUES(6,4,500,500,500000,500,500,500,500000,500,0,0,0,0,0,0,0,0,0,0,0,0,1);
INSERT INTO accounts VALUES(7,NULL,1000,1000,1000000,1000,1000,1000,1000000,1000,0,0,0,0,0,0,0,0,0,0,0,0,1);
INSERT INTO accounts VALUES(8,NULL,1000,1000,1000000,1000,970,1000,1000000,1000,30,0,0,0,0,0,0,0,0,0,0,0,0);
INSERT INTO accounts VALUES(9,NULL,1000,1000,1000000,1000,1000,1000,1000000,1000,0,0,0,0,0,0,0,0,0,0,0,0,0);
INSERT INTO accounts VALUES(10,9,1000,1000,1000000,1000,1000,1000,1000000,1000,0,0,0,0,0,0,0,0,0,0,0,0,1);
INSERT INTO accounts VALUES(11,NULL,1000,1000,1000000,1000,1,1,1,1,999,999,999999,999,0,0,0,0,0,0,0,0,0);
INSERT INTO accounts VALUES(12,11,333,333,333333,333,293,333,273333,333,0,0,0,0,40,0,60000,0,0,0,0,0,0);
INSERT INTO accounts VALUES(13,11,333,333,333333,333,333,333,333333,333,0,0,0,0,0,0,0,0,0,0,0,0,0);
INSERT INTO accounts VALUES(14,11,333,333,333333,333,333,333,333333,333,0,0,0,0,0,0,0,0,0,0,0,0,0);
INSERT INTO accounts VALUES(15,NULL,1000,1000,1000000,1000,1000,1000,1000000,1000,0,0,0,0,0,0,0,0,0,0,0,0,0);
CREATE TABLE requests (
  n INTEGER PRIMARY KEY,
  id INTEGER NOT NULL UNIQUE,
  session INTEGER NOT NULL,
  repository INTEGER NOT NULL,
  branch TEXT NOT NULL,              -- the integration branch
  parallel INTEGER NOT NULL,         -- how many jobs may be held at once
  held INTEGER NOT NULL,             -- how many are
  account INTEGER NOT NULL,          -- accounts.n
  state TEXT NOT NULL,
  lost INTEGER NOT NULL DEFAULT 0,   -- how often its planner was lost
  failure TEXT,
  created INTEGER NOT NULL,
  ended INTEGER
, queue INTEGER NOT NULL DEFAULT 0, place INTEGER NOT NULL DEFAULT 0, patience INTEGER NOT NULL DEFAULT 0, offered INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO requests VALUES(1,807972070758754248,1064131386981570811,975683153119789622,'skep/integration',8,0,1,'done',0,NULL,1000000,1500000,1,301000000,300000000,0);
INSERT INTO requests VALUES(2,1139378040933840745,1064131386981570811,975683153119789622,'skep/integration',8,0,4,'failed',0,'{"reason":"agent_failed","detail":"it crashed"}',1500000,1500000,1,301500000,300000000,0);
INSERT INTO requests VALUES(3,542106038154513891,1064131386981570811,975683153119789622,'skep/integration',8,0,7,'cancelled',0,'{"reason":"cancelled","detail":""}',1500000,1500000,1,301500000,300000000,0);
INSERT INTO requests VALUES(4,1015731887978945605,580399502829821205,975683153119789622,'skep/integration',8,0,8,'planning',0,NULL,1500000,NULL,1,301500000,300000000,0);
INSERT INTO requests VALUES(5,620819801444912943,1064131386981570811,975683153119789622,'skep/integration',8,0,9,'integrating',0,NULL,1500000,NULL,1,301500000,300000000,0);
INSERT INTO requests VALUES(6,643712687877396780,1064131386981570811,975683153119789622,'skep/integration',8,0,11,'working',0,NULL,1500000,NULL,1,301500000,300000000,1);
INSERT INTO requests VALUES(7,118883816843069341,580399502829821205,975683153119789622,'skep/integration',8,0,15,'queued',0,NULL,1500000,NULL,1,301500000,300000000,0);
CREATE TABLE asks (
  request INTEGER PRIMARY KEY,       -- requests.n
  body TEXT NOT NULL
) STRICT;
INSERT INTO asks VALUES(1,'{"repository":"p-v2jjn25gkghp","repository_path":"/r","base":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","prompt":"Mend the parser\n\nIt fails on commas.","planning":"auto","plan":null,"agent":"built-in","model":null,"budget":{"tokens":1000,"money":1000,"wall_ms":1000000,"iterations":1000},"policy":{"paths":{},"integration":{"branch":"skep/integration"},"commit":{"name":"Skep","email":"skep@localhost","message":"{title}\n\n{summary}\n\nSkep-Request: {request}\nSkep-Job: {job}\nSkep-Attempt: {attempt}\nSkep-Agent: {agent}\nSkep-Model: {model}\n"},"toolchains":{}},"parallel":8,"retry_of":null,"included":[{"path":".env","executable":false,"content":"10a156a5e3d7e242dec3e7039a6a3dabad9fb007819270751fd97aaca6eba4be"}]}');
INSERT INTO asks VALUES(2,'{"repository":"p-v2jjn25gkghp","repository_path":"/r","base":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","prompt":"Mend the parser\n\nIt fails on commas.","planning":"auto","plan":null,"agent":"built-in","model":null,"budget":{"tokens":1000,"money":1000,"wall_ms":1000000,"iterations":1000},"policy":{"paths":{},"integration":{"branch":"skep/integration"},"commit":{"name":"Skep","email":"skep@localhost","message":"{title}\n\n{summary}\n\nSkep-Request: {request}\nSkep-Job: {job}\nSkep-Attempt: {attempt}\nSkep-Agent: {agent}\nSkep-Model: {model}\n"},"toolchains":{}},"parallel":8,"retry_of":null}');
INSERT INTO asks VALUES(3,'{"repository":"p-v2jjn25gkghp","repository_path":"/r","base":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","prompt":"Mend the parser\n\nIt fails on commas.","planning":"auto","plan":null,"agent":"built-in","model":null,"budget":{"tokens":1000,"money":1000,"wall_ms":1000000,"iterations":1000},"policy":{"paths":{},"integration":{"branch":"skep/integration"},"commit":{"name":"Skep","email":"skep@localhost","message":"{title}\n\n{summary}\n\nSkep-Request: {request}\nSkep-Job: {job}\nSkep-Attempt: {attempt}\nSkep-Agent: {agent}\nSkep-Model: {model}\n"},"toolchains":{}},"parallel":8,"retry_of":null}');
INSERT INTO asks VALUES(4,'{"repository":"p-v2jjn25gkghp","repository_path":"/r","base":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","prompt":"Mend the parser\n\nIt fails on commas.","planning":"auto","plan":null,"agent":"built-in","model":null,"budget":{"tokens":1000,"money":1000,"wall_ms":1000000,"iterations":1000},"policy":{"paths":{},"integration":{"branch":"skep/integration"},"commit":{"name":"Skep","email":"skep@localhost","message":"{title}\n\n{summary}\n\nSkep-Request: {request}\nSkep-Job: {job}\nSkep-Attempt: {attempt}\nSkep-Agent: {agent}\nSkep-Model: {model}\n"},"toolchains":{}},"parallel":8,"retry_of":null,"included":[{"path":".env","executable":false,"content":"10a156a5e3d7e242dec3e7039a6a3dabad9fb007819270751fd97aaca6eba4be"}]}');
INSERT INTO asks VALUES(5,'{"repository":"p-v2jjn25gkghp","repository_path":"/r","base":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","prompt":"Mend the parser\n\nIt fails on commas.","planning":"auto","plan":null,"agent":"built-in","model":null,"budget":{"tokens":1000,"money":1000,"wall_ms":1000000,"iterations":1000},"policy":{"paths":{},"integration":{"branch":"skep/integration"},"commit":{"name":"Skep","email":"skep@localhost","message":"{title}\n\n{summary}\n\nSkep-Request: {request}\nSkep-Job: {job}\nSkep-Attempt: {attempt}\nSkep-Agent: {agent}\nSkep-Model: {model}\n"},"toolchains":{}},"parallel":8,"retry_of":null}');
INSERT INTO asks VALUES(6,'{"repository":"p-v2jjn25gkghp","repository_path":"/r","base":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","prompt":"Mend the parser\n\nIt fails on commas.","planning":"auto","plan":null,"agent":"built-in","model":null,"budget":{"tokens":1000,"money":1000,"wall_ms":1000000,"iterations":1000},"policy":{"paths":{},"integration":{"branch":"skep/integration"},"commit":{"name":"Skep","email":"skep@localhost","message":"{title}\n\n{summary}\n\nSkep-Request: {request}\nSkep-Job: {job}\nSkep-Attempt: {attempt}\nSkep-Agent: {agent}\nSkep-Model: {model}\n"},"toolchains":{}},"parallel":8,"retry_of":null}');
INSERT INTO asks VALUES(7,'{"repository":"p-v2jjn25gkghp","repository_path":"/r","base":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","prompt":"Mend the parser\n\nIt fails on commas.","planning":"auto","plan":null,"agent":"built-in","model":null,"budget":{"tokens":1000,"money":1000,"wall_ms":1000000,"iterations":1000},"policy":{"paths":{},"integration":{"branch":"skep/integration"},"commit":{"name":"Skep","email":"skep@localhost","message":"{title}\n\n{summary}\n\nSkep-Request: {request}\nSkep-Job: {job}\nSkep-Attempt: {attempt}\nSkep-Agent: {agent}\nSkep-Model: {model}\n"},"toolchains":{}},"parallel":8,"retry_of":null,"included":[{"path":".env","executable":false,"content":"10a156a5e3d7e242dec3e7039a6a3dabad9fb007819270751fd97aaca6eba4be"}]}');
CREATE TABLE submissions (
  key TEXT PRIMARY KEY,
  digest BLOB NOT NULL,              -- SHA-256 of the session and the ask
  request INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO submissions VALUES('key one',X'1d230aeab4f1469be57546989472a305c896454363d5e162e62eb4f040b3d0b4',807972070758754248);
INSERT INTO submissions VALUES('key two',X'aa545edf9d4a6c7a3c05391397ccaf46118793ebb66858f30923cbe9e908db16',1015731887978945605);
CREATE TABLE jobs (
  n INTEGER PRIMARY KEY,
  id INTEGER NOT NULL UNIQUE,
  request INTEGER NOT NULL,
  account INTEGER NOT NULL,          -- accounts.n
  state TEXT NOT NULL,
  claims INTEGER NOT NULL,           -- how often it was claimed
  attempts INTEGER NOT NULL,         -- how many attempts were started
  attempt INTEGER,                   -- the open one
  failure TEXT,
  created INTEGER NOT NULL,
  ended INTEGER
, queue INTEGER NOT NULL DEFAULT 0, place INTEGER NOT NULL DEFAULT 0, offered INTEGER NOT NULL DEFAULT 0, until INTEGER, parks INTEGER NOT NULL DEFAULT 0, first_claim INTEGER, lost INTEGER NOT NULL DEFAULT 0, mark INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO jobs VALUES(1,49254610415645534,807972070758754248,2,'delivered',1,1,NULL,NULL,1000000,1250000,2,301000000,0,NULL,0,NULL,0,0);
INSERT INTO jobs VALUES(2,255499080707884656,807972070758754248,3,'delivered',1,1,NULL,NULL,1000000,1500000,2,301000000,0,NULL,0,NULL,0,0);
INSERT INTO jobs VALUES(3,683033741190822122,1139378040933840745,5,'dead',1,1,NULL,'{"reason":"agent_failed","detail":"it crashed"}',1500000,1500000,2,301500000,0,NULL,0,NULL,0,0);
INSERT INTO jobs VALUES(4,353113961622972539,1139378040933840745,6,'dead',0,0,NULL,'{"reason":"dependency_failed","detail":"j-jymzj6cmhy7a"}',1500000,1500000,2,301500000,0,NULL,0,NULL,0,0);
INSERT INTO jobs VALUES(5,61387164349441038,620819801444912943,10,'delivered',1,1,NULL,NULL,1500000,1500000,2,301500000,0,NULL,0,NULL,0,0);
INSERT INTO jobs VALUES(6,477016393857796680,643712687877396780,12,'ready',0,1,1134726212022200355,NULL,1500000,NULL,2,301500000,1,NULL,0,NULL,1,77);
INSERT INTO jobs VALUES(7,289882673794838708,643712687877396780,13,'parked',0,0,NULL,NULL,1500000,NULL,2,301500000,0,1795749700000000,1,1500000,0,0);
INSERT INTO jobs VALUES(8,331456518073806220,643712687877396780,14,'blocked',0,0,NULL,NULL,1500000,NULL,2,0,0,NULL,0,NULL,0,0);
CREATE TABLE specs (
  job INTEGER PRIMARY KEY,           -- jobs.n
  body TEXT NOT NULL
) STRICT;
INSERT INTO specs VALUES(1,'{"name":"one","title":"do one","prompt":"do one","scope":{}}');
INSERT INTO specs VALUES(2,'{"name":"two","title":"do two","prompt":"do two","after":["one"],"scope":{}}');
INSERT INTO specs VALUES(3,'{"name":"dies","title":"do dies","prompt":"do dies","scope":{}}');
INSERT INTO specs VALUES(4,'{"name":"after","title":"do after","prompt":"do after","after":["dies"],"scope":{}}');
INSERT INTO specs VALUES(5,'{"name":"merges","title":"do merges","prompt":"do merges","scope":{}}');
INSERT INTO specs VALUES(6,'{"name":"runs","title":"do runs","prompt":"do runs","scope":{}}');
INSERT INTO specs VALUES(7,'{"name":"ready","title":"do ready","prompt":"do ready","scope":{}}');
INSERT INTO specs VALUES(8,'{"name":"blocked","title":"do blocked","prompt":"do blocked","after":["runs"],"scope":{}}');
CREATE TABLE dependencies (
  job INTEGER NOT NULL,
  place INTEGER NOT NULL,
  needs INTEGER NOT NULL,
  PRIMARY KEY (job, place)
) STRICT, WITHOUT ROWID;
INSERT INTO dependencies VALUES(255499080707884656,0,49254610415645534);
INSERT INTO dependencies VALUES(331456518073806220,0,477016393857796680);
INSERT INTO dependencies VALUES(353113961622972539,0,683033741190822122);
CREATE TABLE attempts (
  n INTEGER PRIMARY KEY,
  id INTEGER NOT NULL UNIQUE,
  job INTEGER NOT NULL,
  request INTEGER NOT NULL,
  number INTEGER NOT NULL,
  base TEXT NOT NULL,
  agent TEXT NOT NULL,
  model TEXT,
  sandbox TEXT NOT NULL,
  state TEXT NOT NULL,
  failure TEXT,
  summary TEXT NOT NULL,
  tree TEXT,
  tokens INTEGER NOT NULL,           -- what it spent
  money INTEGER NOT NULL,
  wall INTEGER NOT NULL,
  iterations INTEGER NOT NULL,
  created INTEGER NOT NULL,
  ended INTEGER
, was TEXT, resumed INTEGER) STRICT;
INSERT INTO attempts VALUES(1,371217085233140731,49254610415645534,807972070758754248,1,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','built-in','test/model','namespace','passed',NULL,'done','dddddddddddddddddddddddddddddddddddddddd',20,7,250,0,1000000,1250000,NULL,NULL);
INSERT INTO attempts VALUES(2,1103111170085211543,255499080707884656,807972070758754248,1,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','built-in','test/model','namespace','passed',NULL,'done','dddddddddddddddddddddddddddddddddddddddd',20,7,250,0,1250000,1500000,NULL,NULL);
INSERT INTO attempts VALUES(3,759699266404177509,683033741190822122,1139378040933840745,1,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','built-in','test/model','namespace','failed','{"reason":"agent_failed","detail":"it crashed"}','',NULL,0,0,0,0,1500000,1500000,NULL,NULL);
INSERT INTO attempts VALUES(4,376891502476655955,61387164349441038,620819801444912943,1,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','built-in','test/model','namespace','passed',NULL,'done','dddddddddddddddddddddddddddddddddddddddd',0,0,0,0,1500000,1500000,NULL,NULL);
INSERT INTO attempts VALUES(5,1134726212022200355,477016393857796680,643712687877396780,1,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','built-in','test/model','namespace','suspended',NULL,'',NULL,40,0,60000,0,1500000,NULL,'running',NULL);
CREATE TABLE changes (
  n INTEGER PRIMARY KEY,
  id INTEGER NOT NULL UNIQUE,
  attempt INTEGER NOT NULL UNIQUE,
  job INTEGER NOT NULL UNIQUE,
  request INTEGER NOT NULL,
  repository INTEGER NOT NULL,
  branch TEXT NOT NULL,
  base TEXT NOT NULL,
  object TEXT NOT NULL,              -- the commit that the gate passed
  state TEXT NOT NULL,
  integrated TEXT,                   -- the commit on the branch; before the state says so, the intent
  conflicts TEXT NOT NULL,           -- a JSON list
  failure TEXT,
  checked INTEGER NOT NULL,
  created INTEGER NOT NULL,
  ended INTEGER
, queue INTEGER NOT NULL DEFAULT 0, place INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO changes VALUES(1,526810315610272048,371217085233140731,49254610415645534,807972070758754248,975683153119789622,'skep/integration','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','cccccccccccccccccccccccccccccccccccccccc','integrated','eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','[]',NULL,1,1250000,1250000,3,1250000);
INSERT INTO changes VALUES(2,1003348050465335495,1103111170085211543,255499080707884656,807972070758754248,975683153119789622,'skep/integration','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','cccccccccccccccccccccccccccccccccccccccc','integrated','eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','[]',NULL,1,1500000,1500000,3,1500000);
INSERT INTO changes VALUES(3,794847079165340950,376891502476655955,61387164349441038,620819801444912943,975683153119789622,'skep/integration','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','cccccccccccccccccccccccccccccccccccccccc','checking','ffffffffffffffffffffffffffffffffffffffff','[]',NULL,1,1500000,NULL,3,1500000);
CREATE TABLE leases (
  token INTEGER PRIMARY KEY AUTOINCREMENT,
  id INTEGER NOT NULL,
  kind TEXT NOT NULL,                -- request, job or change
  subject INTEGER NOT NULL,
  owner INTEGER NOT NULL,
  deadline INTEGER NOT NULL
, graced INTEGER) STRICT;
INSERT INTO leases VALUES(8,6424696487903507,'request',1015731887978945605,7892372558710146722,61500000,NULL);
INSERT INTO leases VALUES(11,733829458577811864,'change',794847079165340950,7892372558710146722,61500000,NULL);
CREATE TABLE grants (
  n INTEGER PRIMARY KEY,
  id INTEGER NOT NULL UNIQUE,
  lease INTEGER NOT NULL,            -- leases.token
  request INTEGER NOT NULL,
  attempt INTEGER,                   -- none where a planner spends
  account INTEGER NOT NULL,          -- accounts.n
  reserved_tokens INTEGER NOT NULL, reserved_money INTEGER NOT NULL,
  reserved_wall INTEGER NOT NULL, reserved_iterations INTEGER NOT NULL,
  spent_tokens INTEGER NOT NULL, spent_money INTEGER NOT NULL,
  spent_wall INTEGER NOT NULL, spent_iterations INTEGER NOT NULL,
  closed INTEGER NOT NULL
) STRICT;
INSERT INTO grants VALUES(1,783859794997124806,2,807972070758754248,371217085233140731,2,0,0,0,0,20,7,0,0,1);
INSERT INTO grants VALUES(2,82966942818090345,4,807972070758754248,1103111170085211543,3,0,0,0,0,20,7,0,0,1);
INSERT INTO grants VALUES(3,828453960181941730,8,1015731887978945605,NULL,8,30,0,0,0,0,0,0,0,0);
INSERT INTO grants VALUES(4,627504297060055354,13,643712687877396780,1134726212022200355,12,0,0,0,0,40,0,0,0,1);
CREATE TABLE calls (
  granted INTEGER NOT NULL,          -- grants.n
  call INTEGER NOT NULL,
  exchange TEXT,
  PRIMARY KEY (granted, call)
) STRICT, WITHOUT ROWID;
INSERT INTO calls VALUES(1,1,'{"call":1,"endpoint":"/v1/messages","request":"8163a7d71b91347a1efe60413e773743993d7e660826c0ab7cb77a7715d37824","digest":"d","status":200,"headers":[["content-type","application/json"]],"response":"2d6ecd6ef9f30aaac5184ff646a6d69044767fe9f70c26efaeca141c6d3af777"}');
INSERT INTO calls VALUES(2,1,'{"call":1,"endpoint":"/v1/messages","request":"8163a7d71b91347a1efe60413e773743993d7e660826c0ab7cb77a7715d37824","digest":"d","status":200,"headers":[["content-type","application/json"]],"response":"2d6ecd6ef9f30aaac5184ff646a6d69044767fe9f70c26efaeca141c6d3af777"}');
CREATE TABLE queues (
  n INTEGER PRIMARY KEY,
  kind INTEGER NOT NULL,             -- 0 requests to plan, 1 jobs, 2 changes to merge
  repository INTEGER NOT NULL,
  user TEXT NOT NULL,
  agent TEXT NOT NULL,
  provider TEXT NOT NULL,
  needs TEXT NOT NULL,               -- what a worker must be able to do: a sorted JSON list, or ''
  pin TEXT NOT NULL,                 -- the only worker that may claim, or ''
  branch TEXT NOT NULL,              -- of changes: where they are merged
  most INTEGER,                      -- how many may be held at once
  offered INTEGER NOT NULL,
  held INTEGER NOT NULL,
  rank INTEGER
) STRICT;
INSERT INTO queues VALUES(1,0,975683153119789622,'','','','','','',NULL,1,1,331500000);
INSERT INTO queues VALUES(2,1,975683153119789622,'','built-in','','','','',NULL,1,0,301500000);
INSERT INTO queues VALUES(3,2,975683153119789622,'','','','','','skep/integration',1,0,1,NULL);
CREATE TABLE offers (
  queue INTEGER NOT NULL,
  place INTEGER NOT NULL,
  subject INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  request INTEGER NOT NULL,          -- its id
  PRIMARY KEY (queue, place, subject)
) STRICT, WITHOUT ROWID;
INSERT INTO offers VALUES(1,301500000,7,0,118883816843069341);
INSERT INTO offers VALUES(2,301500000,6,1,643712687877396780);
CREATE TABLE limits (
  kind TEXT NOT NULL,                -- repository, agent or provider
  name TEXT NOT NULL,
  most INTEGER NOT NULL,
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
INSERT INTO limits VALUES('provider','anthropic',4);
CREATE TABLE rates (
  user TEXT PRIMARY KEY,
  left INTEGER NOT NULL,             -- thousandths of a submission
  time INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO rates VALUES('somebody',30000,1000000);
CREATE TABLE history (
  hour INTEGER NOT NULL,             -- since the epoch
  measure TEXT NOT NULL,
  bucket INTEGER NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (measure, hour, bucket)
) STRICT, WITHOUT ROWID;
INSERT INTO history VALUES(0,'wait',0,1);
CREATE TABLE blobs (
  id BLOB PRIMARY KEY,               -- SHA-256
  bytes INTEGER NOT NULL,            -- of its file
  refs INTEGER NOT NULL CHECK (refs >= 0)
) STRICT, WITHOUT ROWID;
INSERT INTO blobs VALUES(X'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f',0,0);
INSERT INTO blobs VALUES(X'10a156a5e3d7e242dec3e7039a6a3dabad9fb007819270751fd97aaca6eba4be',0,3);
INSERT INTO blobs VALUES(X'2d6ecd6ef9f30aaac5184ff646a6d69044767fe9f70c26efaeca141c6d3af777',0,2);
INSERT INTO blobs VALUES(X'33c87625ba07d2fe2b748d75d5ffd45955f78d91832defe14eda98970e35dfa8',0,6);
INSERT INTO blobs VALUES(X'8163a7d71b91347a1efe60413e773743993d7e660826c0ab7cb77a7715d37824',0,2);
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('leases',13);
CREATE UNIQUE INDEX events_of_session ON events (session, sequence);
CREATE INDEX evidence_of_attempt ON events (attempt, n) WHERE attempt IS NOT NULL;
CREATE INDEX requests_of_repository ON requests (repository, n);
CREATE INDEX jobs_of_request ON jobs (request, n);
CREATE INDEX attempts_of_job ON attempts (job, n);
CREATE INDEX changes_of_request ON changes (request, n);
CREATE INDEX changes_in_hand ON changes (repository, branch) WHERE state IN ('merging', 'checking');
CREATE UNIQUE INDEX leases_of_subject ON leases (kind, subject);
CREATE INDEX leases_by_deadline ON leases (deadline);
CREATE INDEX grants_open ON grants (lease) WHERE closed = 0;
CREATE INDEX grants_of_attempt ON grants (attempt, n) WHERE attempt IS NOT NULL;
CREATE INDEX grants_of_request ON grants (request, n);
CREATE UNIQUE INDEX queues_by_name
  ON queues (kind, repository, branch, user, agent, provider, needs, pin);
CREATE INDEX queues_by_rank ON queues (kind, rank) WHERE rank IS NOT NULL;
CREATE INDEX offers_of_request ON offers (request, kind, place);
CREATE INDEX requests_open ON requests (n) WHERE ended IS NULL;
CREATE INDEX jobs_ready ON jobs (request, place, n) WHERE state = 'ready' AND offered = 0;
CREATE INDEX jobs_parked ON jobs (until) WHERE state = 'parked';
CREATE INDEX jobs_dead ON jobs (n) WHERE state = 'dead';
CREATE INDEX blobs_unused ON blobs (id) WHERE refs = 0;
CREATE INDEX submissions_of_request ON submissions (request);
CREATE INDEX jobs_open ON jobs (attempt) WHERE attempt IS NOT NULL;
CREATE INDEX events_of_request ON events (request_row, sequence) WHERE request_row IS NOT NULL;
COMMIT;
PRAGMA user_version=5;
